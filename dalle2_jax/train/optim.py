"""unCLIP App. C: AdamW, warm-up, clipping, the EMA, and what CLIP adds to it: SAM."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from dalle2_jax.errors import BadInput
from dalle2_jax.shard.rules import shardings

SAM_AXIS = "sam_groups"  # losses that compare examples gather over it


class Sam(NamedTuple):
    """rho: length of the perturbation, 0: off; group: examples that share one."""

    rho: float = 0.0
    group: int = 64


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


def gradient(loss, sam=None, mesh=None):
    """The gradient of a loss, or with `sam` the sharpness-aware one.

    Foret et al. 2020, algorithm 1: the gradient is that at w + rho g / |g|, where g is
    the gradient at w. unCLIP App. C takes g on each replica alone, 64 examples. Here
    each group of `sam.group` neighbours in the batch is such a replica: it has a copy
    w_r of the parameters, through which its examples go and no others. The loss stays
    the one of the whole batch, L(w_1, ..., w_n): for a contrastive loss the examples of
    other groups remain the negatives, seen with their own parameters. So

        g_r = dL/dw_r at w_r = w,   result = sum_r dL/dw_r at w_r = w + rho g_r / |g_r|.

    g_r is never averaged over groups. For losses that are means over examples this is
    m-sharpness. A device holds the copies of its own groups only.

    Args:
        loss: (params, frozen, batch, key) -> (scalar, metrics). With SAM it runs once
            per group under a mapped axis SAM_AXIS, with a key per group.
        sam: Sam or None.
        mesh: over which the groups are spread, or None.

    Returns:
        (params, frozen, batch, key) -> ((value, metrics) at w, gradient).
    """
    if sam is None or sam.rho == 0:
        return jax.value_and_grad(loss, has_aux=True)

    def sharpness_aware(params, frozen, batch, key):
        size = len(jax.tree.leaves(batch)[0])
        groups = _groups(size, sam, mesh)
        parts = jax.tree.map(lambda x: x.reshape(groups, -1, *x.shape[1:]), batch)
        keys = jax.random.split(key, groups)

        def whole(own):
            call = jax.vmap(loss, (0, None, 0, 0), axis_name=SAM_AXIS)
            return jax.tree.map(_over_groups, call(own, frozen, parts, keys))

        own = jax.tree.map(lambda w: jnp.broadcast_to(w, (groups, *w.shape)), params)
        result, local = jax.value_and_grad(whole, has_aux=True)(_spread(own, mesh))
        step = jax.vmap(lambda g: perturbation(g, sam.rho))(local)
        moved = jax.tree.map(jnp.add, own, step)
        grads = jax.grad(whole, has_aux=True)(_spread(moved, mesh))[0]
        return result, _summed(grads, mesh)

    return sharpness_aware


def perturbation(grads, rho):
    """rho g / |g|, the norm over all leaves; 0 where g is 0."""
    length = jnp.maximum(optax.global_norm(grads), 1e-12)
    return jax.tree.map(lambda g: rho * g / length, grads)


def _over_groups(x):
    """Means of scalars [groups]; values per example [groups, n] one after the other."""
    return x.mean(0) if x.ndim == 1 else x.reshape(-1)


def _groups(size, sam, mesh):
    """How many groups a batch has.

    Raises:
        BadInput: the batch is not made of whole groups, or they do not spread evenly.
    """
    parts = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
    if size % (sam.group * parts):
        raise BadInput(
            f"config.batch = {size} is not a multiple of config.optim.sam_group = "
            f"{sam.group} times {parts} devices; change one of them."
        )
    return size // sam.group


def _spread(tree, mesh):
    """Copies per group, each on the device of its group."""
    if mesh is None:
        return tree

    def one(x):
        spec = P(("data", "fsdp"), *[P.UNCONSTRAINED] * (x.ndim - 1))
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

    return jax.tree.map(one, tree)


def _summed(tree, mesh):
    """Sums over groups, laid out as the parameters: scattered, then added over `data`.

    Spelled out, since of a plain sum the compiler makes an all-reduce over all devices.
    """
    if mesh is None:
        return jax.tree.map(lambda g: g.sum(0), tree)
    shapes = jax.tree.map(lambda g: jax.ShapeDtypeStruct(g.shape[1:], g.dtype), tree)

    def one(g, place):
        spec = tuple(axis if axis == "fsdp" else None for axis in place.spec)

        def added(own):
            total = own.sum(0)
            if "fsdp" in spec:
                at = spec.index("fsdp")
                total = jax.lax.psum_scatter(
                    total, "fsdp", scatter_dimension=at, tiled=True
                )
            else:
                total = jax.lax.psum(total, "fsdp")
            return jax.lax.psum(total, "data")

        return jax.shard_map(
            added,
            mesh=mesh,
            in_specs=P(("data", "fsdp")),
            out_specs=P(*spec),
            axis_names={"data", "fsdp"},
        )(g)

    return jax.tree.map(one, tree, shardings(shapes, mesh))


def ema_update(ema, params, step, decay):
    """The moving average of the parameters; young averages forget faster.

    Args:
        ema, params: trees of the same shape.
        step: int32, updates done so far.
        decay: the asymptotic decay; the one used is min(decay, (1 + n) / (10 + n)).
    """
    n = step.astype(jnp.float32)
    rate = 1 - jnp.minimum(decay, (1 + n) / (10 + n))
    # in this form a leaf that never changes keeps its bits
    return jax.tree.map(lambda old, new: old + rate * (new - old), ema, params)
