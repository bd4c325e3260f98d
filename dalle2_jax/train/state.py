"""What training carries from step to step, created already sharded."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dalle2_jax.shard.mesh import replicated
from dalle2_jax.shard.rules import shardings


class TrainState(NamedTuple):
    """step int32 scalar; params, ema: nested dicts of float32; opt: optax state."""

    step: jax.Array
    params: Any
    ema: Any
    opt: Any


def state_layout(shapes, mesh):
    """The sharding of every leaf of a state (or of its shapes)."""
    layout = shardings(shapes, mesh)
    return layout._replace(step=replicated(mesh))


def create_state(params, tx, mesh):
    """A fresh state from host parameters, laid over the mesh.

    Args:
        params: nested dict of NumPy or JAX arrays.
        tx: optax gradient transformation.
        mesh: the run's mesh.
    """
    shapes = jax.eval_shape(lambda p: fresh_state(p, tx), params)
    layout = state_layout(shapes, mesh)
    params = jax.device_put(params, layout.params)
    return jax.jit(lambda p: fresh_state(p, tx), out_shardings=layout)(params)


def fresh_state(params, tx):
    """The state before the first step, on whatever device the parameters are."""
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema, tx.init(params))
