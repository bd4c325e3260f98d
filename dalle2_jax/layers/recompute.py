"""Rematerialisation: what a block keeps of its forward pass for the backward one.

Chen et al. 2016. A block that is rematerialised keeps its arguments and, by policy,
some of what it computed; the rest is computed again when its gradient is taken.
"""

import contextlib
import contextvars

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

_KEEP = jax.checkpoint_policies
POLICIES = {
    "nothing": _KEEP.nothing_saveable,
    "products": _KEEP.save_from_both_policies(  # all but those of attention
        _KEEP.dots_with_no_batch_dims_saveable,
        _KEEP.save_only_these_names("convolution"),
    ),
}
_POLICY = contextvars.ContextVar("policy", default="nothing")


@contextlib.contextmanager
def keeping(policy):
    """Blocks that are made inside keep, beside their arguments, what POLICIES names."""
    token = _POLICY.set(policy)
    try:
        yield
    finally:
        _POLICY.reset(token)


def convolved(x):
    """x, the result of a convolution, which the policy "products" keeps."""
    return checkpoint_name(x, "convolution")


def recomputed(block, remat, static_argnums=(), prevent_cse=True):
    """A class of blocks as it is, or with `remat` rematerialised.

    Args:
        block: subclass of nn.Module.
        remat: bool.
        static_argnums: its arguments that are no arrays, `self` counting as 0.
        prevent_cse: must be true but inside of a scan.
    """
    if not remat:
        return block
    policy = POLICIES[_POLICY.get()]
    return nn.remat(
        block,
        policy=policy,
        static_argnums=static_argnums,
        prevent_cse=prevent_cse,
    )
