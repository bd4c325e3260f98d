"""unCLIP App. C: Adam with decoupled weight decay, warm-up, clipping, and the EMA."""

import jax
import jax.numpy as jnp
import optax


def rate_schedule(cfg, steps):
    """Linear warm-up, then a cosine to `final` x rate: step -> learning rate."""
    warmup = min(cfg.warmup, steps - 1)
    fall = optax.cosine_decay_schedule(cfg.rate, steps - warmup, alpha=cfg.final)
    rise = optax.linear_schedule(0.0, cfg.rate, max(warmup, 1))
    return optax.join_schedules([rise, fall], [warmup])


def decayed(params):
    """Which leaves weight decay touches: matrices, not gains, biases or scalars."""

    def one(path, leaf):
        name = path[-1].key
        return leaf.ndim >= 2 and name in ("kernel", "embedding")

    return jax.tree_util.tree_map_with_path(one, params)


def optimizer(cfg, steps):
    """The gradient transformation of a run, from `Optim` and its number of steps."""
    adamw = optax.adamw(
        rate_schedule(cfg, steps),
        b1=cfg.beta1,
        b2=cfg.beta2,
        eps=cfg.eps,
        weight_decay=cfg.decay,
        mask=decayed,
    )
    if cfg.clip > 0:
        return optax.chain(optax.clip_by_global_norm(cfg.clip), adamw)
    return adamw


def ema_update(ema, params, step, decay):
    """The moving average of the parameters; young averages forget faster.

    Args:
        ema, params: trees of the same shape.
        step: int32, updates done so far.
        decay: the asymptotic decay; the one used is min(decay, (1 + n) / (10 + n)).
    """
    n = step.astype(jnp.float32)
    rate = 1 - jnp.minimum(decay, (1 + n) / (10 + n))
    return optax.incremental_update(params, ema, rate)
