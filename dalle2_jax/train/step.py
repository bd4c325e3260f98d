"""One update of one stage, pure: (state, frozen, batch, key) -> (state, metrics)."""

import jax
import optax

from dalle2_jax.errors import BadInput
from dalle2_jax.layers.place import Placement, placing
from dalle2_jax.layers.recompute import keeping
from dalle2_jax.shard.gather import outside_blocks, placement_on, scattered
from dalle2_jax.shard.mesh import batch_sharding, replicated
from dalle2_jax.train.accumulate import accumulated
from dalle2_jax.train.guard import judge, unless
from dalle2_jax.train.losses import LOSSES
from dalle2_jax.train.optim import Sam, ema_update, gradient
from dalle2_jax.train.run import Guard
from dalle2_jax.train.state import TrainState, state_layout

USUAL = Guard()


def train_step(state, frozen, batch, key, *, grad, tx, optim, guard):
    """One update, or none where the step is bad (guard.py).

    Args:
        state: TrainState.
        frozen: parameters that are used and not trained (CLIP), or an empty dict.
        batch: tree of arrays [batch, ...].
        key: the run's key; the step folds its number into it, so that randomness is a
            function of (seed, step, sample index) on any number of devices.
        grad: (params, frozen, batch, key) -> ((scalar, metrics), gradient).
        tx: optax gradient transformation.
        optim: Optim; its EMA decays.
        guard: Guard.

    Returns:
        The next state, its number one higher in any case, and metrics by name: float32
        scalars (loss, grad_norm, those of the loss), int32 bad and skipped, and values
        per example [batch] where the loss has them.
    """
    key = jax.random.fold_in(key, state.step)
    (value, metrics), grads = grad(state.params, frozen, batch, key)
    norm = optax.global_norm(grads)
    bad, watch = judge(state.watch, value, norm, guard)
    updates, opt = tx.update(grads, state.opt, state.params)
    params = optax.apply_updates(state.params, updates)
    ema, *emas = (
        ema_update(old, params, state.step, decay)
        for old, decay in zip((state.ema, *state.emas), (optim.ema, *optim.ema_more))
    )
    learned = (params, ema, opt, tuple(emas))
    before = (state.params, state.ema, state.opt, state.emas)
    kept = TrainState(state.step + 1, *unless(bad, learned, before), watch)
    counts = {"bad": bad.astype(int), "skipped": watch.skipped}
    return kept, {"loss": value, "grad_norm": norm, **metrics, **counts}


def step_of(run, clip_cfg, tx, state, mesh):
    """The compiled step of a run: (state, frozen, batch, key) -> (state, metrics).

    state: TrainState of arrays or of ShapeDtypeStructs.
    """
    return jit_step(
        state,
        mesh,
        loss=LOSSES[run.stage](run, clip_cfg),
        tx=tx,
        optim=run.optim,
        guard=run.guard,
        accumulate=run.accumulate,
        keeps=run.remat_keeps,
    )


def jit_step(
    state, mesh, *, loss, tx, optim, guard=USUAL, accumulate=1, keeps="nothing"
):
    """`train_step` compiled for a mesh; the state is donated.

    loss: (params, frozen, batch, key) -> (scalar, metrics); a Loss to accumulate.
    keeps: what rematerialised blocks keep, a name in layers/recompute.py POLICIES.

    Raises:
        BadInput: the network has BatchNorm, whose statistics no step would follow, or
            the loss cannot be accumulated.
    """
    _refuse_statistics(state.params)
    grad = gradient_of(loss, optim, accumulate, mesh)

    def step(state, frozen, batch, key):
        how = {"grad": grad, "tx": tx, "optim": optim, "guard": guard}
        with keeping(keeps):
            return train_step(state, frozen, batch, key, **how)

    layout = state_layout(state, mesh)
    whole = replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(layout, None, batch_sharding(mesh), whole),
        out_shardings=(layout, whole),
        donate_argnums=0,
    )


def gradient_of(loss, optim, accumulate, mesh):
    """(params, frozen, batch, key) -> ((scalar, metrics), gradient), as Optim says."""
    if optim.sam_rho:  # every group of examples has its own copy of the weights
        return gradient(loss, Sam(optim.sam_rho, optim.sam_group), mesh)
    many = accumulate > 1
    grad = accumulated(loss, accumulate, mesh) if many else gradient(loss)
    whole = mesh.shape["fsdp"] * mesh.shape["tensor"] == 1  # on every device
    return grad if whole else gathering(grad, mesh)


def gathering(grad, mesh):
    """The same gradient with the weights of every block gathered as it uses them."""

    def on_mesh(params, frozen, batch, key):
        with placing(Placement(*placement_on(mesh))):
            params, frozen = (outside_blocks(mesh, tree) for tree in (params, frozen))
            found, grads = grad(params, frozen, batch, key)
        return found, scattered(mesh, grads)

    return on_mesh


def _refuse_statistics(params):
    for path, _ in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("/variance"):
            raise BadInput(
                f"{name} is a BatchNorm statistic, which training does not follow: "
                "ResNet image towers can be imported and used, not trained; choose a "
                "ViT (config.model.image.blocks empty)."
            )
