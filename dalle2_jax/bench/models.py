"""Models of given sizes with made-up weights, or with shapes in their place."""

import dataclasses

import jax
import jax.numpy as jnp

from dalle2_jax.components import (
    DTYPES,
    STAGES,
    Component,
    cast,
    computing_in,
    initial_params,
)
from dalle2_jax.layers.init import param_shapes
from dalle2_jax.unclip import UnCLIP


def made_up(parts, dtype="float32", abstract=False):
    """An UnCLIP without a tokenizer.

    Args:
        parts: [(stage, configuration, Noise or None, dict of Sampling)].
        dtype: of weights and computation, as in `components.cast`.
        abstract: ShapeDtypeStructs in the place of weights; nothing is allocated.

    Raises:
        BadInput: dtype is none of components.DTYPES.
    """
    build = shaped if abstract else weighted
    held = {stage: build(stage, *rest, dtype) for stage, *rest in parts}
    return UnCLIP(**held)


def weighted(stage, cfg, noise, sampling, dtype):
    """A component with its first weights."""
    config = {"sampling": sampling}
    part = Component(cfg, noise, initial_params(stage, cfg, 0), config)
    return cast(part, dtype)


def shaped(stage, cfg, noise, sampling, dtype):
    """A component whose weights are shapes."""
    cfg = computing_in(cfg, dtype)  # checks it
    _, network, example = STAGES[stage]

    def one(leaf):
        kind = DTYPES[dtype] if len(leaf.shape) > 1 else jnp.float32
        return jax.ShapeDtypeStruct(leaf.shape, kind)

    params = jax.tree.map(one, param_shapes(network(cfg), *example(cfg)))
    return Component(cfg, noise, params, {"sampling": sampling})


def text_only(cfg):
    """A ClipConfig of the text tower alone, its embeddings not normalised (Karlo)."""
    return dataclasses.replace(cfg, image=None, unit=False)
