"""What training carries from step to step, created already sharded."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dalle2_jax.shard.mesh import replicated
from dalle2_jax.shard.processes import spread
from dalle2_jax.shard.rules import shardings
from dalle2_jax.train.guard import Watch, fresh_watch


class TrainState(NamedTuple):
    """step int32 scalar; params, ema: nested dicts of float32; opt: optax state.

    emas: further averages like `ema`, one for each of Optim.ema_more; watch: Watch.
    """

    step: jax.Array
    params: Any
    ema: Any
    opt: Any
    emas: tuple = ()
    watch: Watch | None = None


def state_layout(shapes, mesh):
    """The sharding of every leaf of a state (or of its shapes)."""
    layout = shardings(shapes, mesh)
    return layout._replace(step=replicated(mesh))


def create_state(params, tx, mesh, averages=0):
    """A fresh state from host parameters, laid over the mesh.

    Args:
        params: nested dict of NumPy or JAX arrays.
        tx: optax gradient transformation.
        mesh: the run's mesh.
        averages: how many EMAs besides the main one.
    """

    def fresh(params):
        return fresh_state(params, tx, averages)

    layout = state_layout(jax.eval_shape(fresh, params), mesh)
    params = spread(params, layout.params)
    return jax.jit(fresh, out_shardings=layout)(params)


def fresh_state(params, tx, averages=0):
    """The state before the first step, on whatever device the parameters are."""
    ema, *more = (jax.tree.map(jnp.copy, params) for _ in range(1 + averages))
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, ema, tx.init(params), tuple(more), fresh_watch())
