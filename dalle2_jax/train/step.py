"""One update of one stage, pure: (state, frozen, batch, key) -> (state, metrics)."""

import jax
import optax

from dalle2_jax.errors import BadInput
from dalle2_jax.shard.mesh import batch_sharding, replicated
from dalle2_jax.train.optim import ema_update, gradient
from dalle2_jax.train.state import TrainState, state_layout


def train_step(state, frozen, batch, key, *, grad, tx, decay):
    """One update.

    Args:
        state: TrainState.
        frozen: parameters that are used and not trained (CLIP), or an empty dict.
        batch: tree of arrays [batch, ...].
        key: the run's key; the step folds its number into it, so that randomness is a
            function of (seed, step, sample index) on any number of devices.
        grad: (params, frozen, batch, key) -> ((scalar, metrics), gradient).
        tx: optax gradient transformation.
        decay: EMA decay.

    Returns:
        The next state, and float32 scalars by name (loss and gradient norm included).
    """
    key = jax.random.fold_in(key, state.step)
    (value, metrics), grads = grad(state.params, frozen, batch, key)
    updates, opt = tx.update(grads, state.opt, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = ema_update(state.ema, params, state.step, decay)
    norm = optax.global_norm(grads)
    metrics = {"loss": value, "grad_norm": norm, **metrics}
    return TrainState(state.step + 1, params, ema, opt), metrics


def jit_step(state, mesh, *, loss, tx, decay, sam=None):
    """`train_step` compiled for a mesh; the state is donated.

    loss: (params, frozen, batch, key) -> (scalar, metrics). sam: Sam or None.

    Raises:
        BadInput: the network has BatchNorm, whose statistics no step would follow.
    """
    _refuse_statistics(state.params)
    grad = gradient(loss, sam, mesh)

    def step(state, frozen, batch, key):
        return train_step(state, frozen, batch, key, grad=grad, tx=tx, decay=decay)

    layout = state_layout(state, mesh)
    whole = replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(layout, whole, batch_sharding(mesh), whole),
        out_shardings=(layout, whole),
        donate_argnums=0,
    )


def _refuse_statistics(params):
    for path, _ in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("/variance"):
            raise BadInput(
                f"{name} is a BatchNorm statistic, which training does not follow: "
                "ResNet image towers can be imported and used, not trained; choose a "
                "ViT (config.model.image.blocks empty)."
            )
