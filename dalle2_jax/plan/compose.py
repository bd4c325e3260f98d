"""Big U-Nets planned from their distinct blocks, compiled one by one.

A U-Net of billions of parameters is a hundred blocks of straight code, too much for a
small machine's compiler, but they are of some thirty kinds. The step is compiled once
with a stub in the place of every block, which keeps what rematerialisation keeps (the
block's arguments, its gradient) and computes nothing; each kind of block is compiled
once, forward and backward, with its real shardings. Then

    memory   = step with stubs + the largest temporaries of two neighbouring blocks
               + the code of all blocks,
    traffic  = step with stubs + sum over blocks.

Two, since what a block computes again depends on no gradient: the compiler starts it
while its neighbour is still at work.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.layers.place import Placement, along_batch, placed, placing
from dalle2_jax.layers.recompute import recomputed
from dalle2_jax.layers.resblock import ResBlock
from dalle2_jax.layers.unet import SpatialAttention
from dalle2_jax.shard.gather import placement_on
from dalle2_jax.shard.mesh import batch_sharding, replicated
from dalle2_jax.shard.rules import shardings

KINDS = {ResBlock: (3,), SpatialAttention: ()}  # class: static arguments of its remat
MANY = 12  # blocks up to which a step is compiled whole


class Kind(NamedTuple):
    """A kind of block: its class, the fields of the module, and its arguments.

    params: nested dict of ShapeDtypeStructs; args: ShapeDtypeStructs, bools and Nones.
    """

    block: Any
    fields: tuple
    params: Any
    args: tuple

    @property
    def module(self):
        """The bare block."""
        return self.block(**dict(self.fields))

    @property
    def dtype(self):
        """Its compute dtype."""
        cfg = dict(self.fields).get("cfg", self.module)
        return cfg.dtype


def kinds_of(step, shapes):
    """The distinct blocks of a step, and the step lowered with stubs in their place.

    Args:
        step: a jitted function that was not traced yet.
        shapes: its arguments.

    Returns:
        ([Kind], the number in that list of every block in its order, lowered).
    """
    order, kinds = [], {}

    def intercept(call, args, kwargs, context):
        module = context.module
        block = next((k for k in KINDS if isinstance(module, k)), None)
        inside = context.method_name == "__call__" and module.path
        if block is None or not inside:
            return call(*args, **kwargs)
        params = module.variables["params"]
        kind = _kind(block, module, params, args)
        name = repr((kind.block, kind.fields, jax.tree.leaves(kind.params), kind.args))
        kinds.setdefault(name, kind)
        order.append(list(kinds).index(name))
        return _stub(kind, params, args)

    with nn.intercept_methods(intercept):
        lowered = step.lower(*shapes)
    return list(kinds.values()), order, lowered


def unet_blocks(cfg):
    """Blocks of a model's U-Net that are rematerialised; 0 without a U-Net."""
    unet = getattr(cfg, "unet", None)
    if unet is None or not unet.remat:
        return 0
    return 2 + sum(2 * (unet.depth + 1) for _ in unet.multiples)


def lower_block(kind, mesh):
    """A block's forward and backward pass, lowered for a mesh."""
    arrays = _arrays(kind.args)
    block = placed_block(kind, mesh)
    y = jax.eval_shape(block, kind.params, arrays, jax.random.key(0))

    def both(params, arrays, key, dy):
        y, back = jax.vjp(lambda p, a: block(p, a, key), params, arrays)
        return y, back(dy)

    split, whole = shardings(kind.params, mesh), replicated(mesh)
    batch = batch_sharding(mesh)
    key = jax.eval_shape(jax.random.key, 0)
    inexact = [jnp.issubdtype(a.dtype, jnp.inexact) for a in arrays]
    places = [batch if real else whole for real in inexact]
    jitted = jax.jit(
        both,
        in_shardings=(split, batch, whole, batch),
        out_shardings=(batch, (split, places)),
    )
    return jitted.lower(kind.params, arrays, key, y)


def placed_block(kind, mesh):
    """(params, arrays, key) -> y, rematerialised and gathering as in the real step."""

    def run(params, arrays, key):
        with placing(Placement(*placement_on(mesh))):
            block = placed(kind.block, kind.dtype)
            made = recomputed(block, True, static_argnums=KINDS[kind.block])
            args = _filled(kind, arrays)
            module = made(**dict(kind.fields))
            return module.apply({"params": params}, *args, rngs={"dropout": key})

    return run


def _kind(block, module, params, args):
    skipped = ("parent", "name")
    fields = tuple(
        (field.name, getattr(module, field.name))
        for field in dataclasses.fields(block)
        if field.name not in skipped
    )
    return Kind(block, fields, _shapes(params), tuple(map(_shapes, args)))


def _shapes(tree):
    """Arrays become ShapeDtypeStructs, bools and None stay."""
    return jax.tree.map(
        lambda x: x if isinstance(x, bool) else jax.ShapeDtypeStruct(x.shape, x.dtype),
        tree,
    )


def _arrays(args):
    return [a for a in args if not isinstance(a, bool) and a is not None]


def _filled(kind, arrays):
    """A block's arguments, the arrays among them as given."""
    rest = iter(arrays)
    return [a if a is None or isinstance(a, bool) else next(rest) for a in kind.args]


def _stub(kind, params, args):
    arrays = _arrays(args)

    def real(params, arrays):
        rngs = {"dropout": jax.random.key(0)}
        return kind.module.apply({"params": params}, *_filled(kind, arrays), rngs=rngs)

    y = jax.eval_shape(real, params, arrays)
    return _empty((y.shape, y.dtype.name), params, arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _empty(out, params, arrays):
    """A block's result in shape and dependence; barriers make the compiler keep it."""
    shape, dtype = out
    value = _per_sample(arrays[0]).reshape(-1, *[1] * (len(shape) - 1))
    y = jnp.broadcast_to(value, shape).astype(dtype)
    return along_batch(jax.lax.optimization_barrier(y))


def _empty_forward(out, params, arrays):
    return _empty(out, params, arrays), (params, arrays)


def _empty_backward(out, kept, dy):
    """Gradients that need all of what was kept, as those of the block do."""
    params, arrays = kept
    value = _per_sample(dy)

    def one(x):
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return np.zeros(x.shape, jax.dtypes.float0)
        here = value.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype)
        return along_batch(jax.lax.optimization_barrier(x * 0.5 + here))

    grads = jax.tree.map(lambda p: jax.lax.optimization_barrier(p * 0.5), params)
    return grads, [one(x) for x in arrays]


_empty.defvjp(_empty_forward, _empty_backward)


def _per_sample(x):
    """[b, ...] -> float32 [b], something of every sample."""
    return x.astype(jnp.float32).mean(tuple(range(1, x.ndim)))
