"""Weights gathered before use (FSDP), so that activations never move.

Left to itself the partitioner splits convolutions and products over channels, which
costs hundreds of all-to-alls per step. Here every block gathers its own weights, in its
compute dtype, inside of rematerialisation: once forward, once backward, and gradients
are scattered to the devices that own them as soon as they are there.
"""

import functools
import re

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from dalle2_jax.shard.rules import shardings

# parameters of the blocks that gather for themselves
IN_BLOCKS = re.compile(
    r".*/(layers|block_\d+|attention(_\d+)?)/.*"
    r"|.*/(down|up)/(norm_\d|conv_\d|time|skip)/.*"
)


def placement_on(mesh):
    """`block_weights` and `batch_split` of a mesh: layers/place.py asks them."""
    return functools.partial(block_weights, mesh), functools.partial(batch_split, mesh)


def block_weights(mesh, params, dtype):
    """A block's parameters for use in it: kernels in its compute dtype, nothing split
    over `fsdp`.

    Args:
        mesh: the run's mesh.
        params: nested dict, names as the sharding rules end.
        dtype: in which kernels are cast, before they travel.
    """

    def one(path, x, place):
        x = x.astype(dtype) if path[-1].key == "kernel" else x
        return _gather(x, place, _without_fsdp(place))

    return jax.tree_util.tree_map_with_path(one, params, shardings(params, mesh))


def batch_split(mesh, x):
    """Activations [b, ...] with the batch over `data` and `fsdp`, the rest free."""
    spec = P(("data", "fsdp"), *[P.UNCONSTRAINED] * (x.ndim - 1))
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def outside_blocks(mesh, params):
    """Parameters with those gathered that belong to no block (stems, heads, tables)."""

    def one(path, x, place):
        name = "/" + jax.tree_util.keystr(path, simple=True, separator="/")
        if IN_BLOCKS.fullmatch(name):
            return x
        return jax.lax.with_sharding_constraint(x, _without_fsdp(place))

    return jax.tree_util.tree_map_with_path(one, params, shardings(params, mesh))


def scattered(mesh, grads):
    """Gradients laid out as the parameters are."""
    return jax.lax.with_sharding_constraint(grads, shardings(grads, mesh))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(x, split, whole):
    """x, split on arrival, for use as `whole`; its gradient comes back split."""
    x = jax.lax.with_sharding_constraint(x, split)
    return jax.lax.with_sharding_constraint(x, whole)


def _gather_forward(x, split, whole):
    return _gather(x, split, whole), None


def _gather_backward(split, whole, _, grad):
    return (jax.lax.with_sharding_constraint(grad, split),)


_gather.defvjp(_gather_forward, _gather_backward)


def _without_fsdp(place):
    spec = P(*(None if axis == "fsdp" else axis for axis in place.spec))
    return NamedSharding(place.mesh, spec)
