"""One update of one stage, pure: (state, frozen, batch, key) -> (state, metrics)."""

import jax
import optax

from dalle2_jax.shard.mesh import batch_sharding, replicated
from dalle2_jax.train.optim import ema_update
from dalle2_jax.train.state import TrainState, state_layout


def train_step(state, frozen, batch, key, *, loss, tx, decay):
    """One update.

    Args:
        state: TrainState.
        frozen: parameters that are used and not trained (CLIP), or an empty dict.
        batch: tree of arrays [batch, ...].
        key: the run's key; the step folds its number into it, so that randomness is a
            function of (seed, step, sample index) on any number of devices.
        loss: (params, frozen, batch, key) -> (scalar, metrics).
        tx: optax gradient transformation.
        decay: EMA decay.

    Returns:
        The next state, and float32 scalars by name (loss and gradient norm included).
    """
    key = jax.random.fold_in(key, state.step)
    grad = jax.value_and_grad(loss, has_aux=True)
    (value, metrics), grads = grad(state.params, frozen, batch, key)
    updates, opt = tx.update(grads, state.opt, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = ema_update(state.ema, params, state.step, decay)
    norm = optax.global_norm(grads)
    metrics = {"loss": value, "grad_norm": norm, **metrics}
    return TrainState(state.step + 1, params, ema, opt), metrics


def jit_step(state, mesh, *, loss, tx, decay):
    """`train_step` compiled for a mesh; the state is donated."""

    def step(state, frozen, batch, key):
        return train_step(state, frozen, batch, key, loss=loss, tx=tx, decay=decay)

    layout = state_layout(state, mesh)
    whole = replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(layout, whole, batch_sharding(mesh), whole),
        out_shardings=(layout, whole),
        donate_argnums=0,
    )
