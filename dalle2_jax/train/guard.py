"""Which steps are passed over: those that are not finite, and spikes of the gradient.

The verdict is part of the step and made of globally reduced values, so that all
processes agree on it and a bad step leaves no trace in what is learned.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Watch(NamedTuple):
    """norm float32: running mean of the gradient norms of good steps.

    good, skipped int32: steps of either kind so far.
    """

    norm: jax.Array
    good: jax.Array
    skipped: jax.Array


def fresh_watch():
    """The watch before the first step."""
    zero = jnp.zeros((), jnp.int32)
    return Watch(jnp.zeros((), jnp.float32), zero, zero)


def judge(watch, loss, norm, cfg):
    """Whether a step is bad, and the watch after it.

    Bad: the loss or the norm of the gradient is not finite, or the norm is more than
    `cfg.spike` times the mean over the last `cfg.horizon` good steps. Nothing is called
    a spike before there have been so many. Bad steps do not enter the mean.

    Args:
        watch: Watch.
        loss, norm: float32 scalars of the whole batch.
        cfg: Guard.

    Returns:
        (bool scalar, Watch).
    """
    bad = ~(jnp.isfinite(loss) & jnp.isfinite(norm))
    if cfg.spike > 0:
        known = watch.good >= cfg.horizon
        bad |= known & (norm > cfg.spike * watch.norm)
    share = 1 / jnp.minimum(watch.good + 1, cfg.horizon)
    mean = watch.norm + share * (norm - watch.norm)
    passed = bad.astype(jnp.int32)
    after = Watch(
        jnp.where(bad, watch.norm, mean),
        watch.good + 1 - passed,
        watch.skipped + passed,
    )
    return bad, after


def unless(bad, new, old):
    """The tree `new`, or bit for bit the tree `old` where the step is bad."""
    return jax.tree.map(lambda a, b: jnp.where(bad, b, a), new, old)
