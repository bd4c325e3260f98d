"""Floating-point operations of a function, counted in its jaxpr.

XLA's own analysis counts the body of a loop once, whatever its length, and what the
compiler has rewritten. This counter sees the program as it was written: two operations
for every multiply-add of a matrix product or a convolution; nothing else counts.
"""

import math

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from dalle2_jax.errors import BadInput


def flops_of(function, *args):
    """Operations of one call of `function(*args)`; nothing is computed.

    Args:
        function: any function that jax can trace.
        args: trees of arrays or ShapeDtypeStructs.

    Raises:
        BadInput: a `while` loop of unknown length multiplies matrices.
    """
    return count(jax.make_jaxpr(function)(*args))


def count(jaxpr):
    """Operations of a Jaxpr or ClosedJaxpr, inner ones as often as they run."""
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    return float(sum(_equation(eqn) for eqn in jaxpr.eqns))


def _equation(eqn):
    kind = eqn.primitive.name
    return COUNTERS[kind](eqn) if kind in COUNTERS else sum(_inner(eqn))


def _inner(eqn):
    """Operations of each jaxpr among an equation's parameters, in order."""
    values = jax.tree.leaves(
        list(eqn.params.values()), is_leaf=lambda x: isinstance(x, (ClosedJaxpr, Jaxpr))
    )
    return [count(x) for x in values if isinstance(x, (ClosedJaxpr, Jaxpr))]


def _dot(eqn):
    (contracted, _), _ = eqn.params["dimension_numbers"]
    lhs, out = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    return 2 * math.prod(out) * math.prod(lhs[axis] for axis in contracted)


def _conv(eqn):
    """Multiply-adds with padding and with the holes of dilation left out."""
    p = eqn.params
    lhs, rhs = (var.aval.shape for var in eqn.invars)
    out = eqn.outvars[0].aval.shape
    numbers = p["dimension_numbers"]
    taps = (
        _taps(out[o], rhs[r], lhs[x], *how)
        for o, r, x, *how in zip(
            numbers.out_spec[2:],
            numbers.rhs_spec[2:],
            numbers.lhs_spec[2:],
            p["window_strides"],
            p["padding"],
            p["lhs_dilation"],
            p["rhs_dilation"],
        )
    )
    features = math.prod(rhs[axis] for axis in numbers.rhs_spec[:2])
    batch = lhs[numbers.lhs_spec[0]] // p["batch_group_count"]
    return 2 * batch * features * math.prod(taps)


def _taps(out, kernel, size, stride, padding, spread, dilation):
    """Pairs (output, tap) along one axis that meet a value of the input."""
    at = np.arange(out)[:, None] * stride + np.arange(kernel) * dilation - padding[0]
    return int(np.sum((at >= 0) & (at <= (size - 1) * spread) & (at % spread == 0)))


def _scan(eqn):
    return eqn.params["length"] * sum(_inner(eqn))


def _cond(eqn):
    return max(_inner(eqn))


def _shard_map(eqn):
    """Its body runs once on every device of the axes that it names."""
    sizes = eqn.params["mesh"].shape
    named = (v for k, v in eqn.params.items() if k.endswith("manual_axes"))
    return sum(_inner(eqn)) * math.prod(sizes[axis] for axis in next(named))


def _while(eqn):
    if sum(_inner(eqn)):
        raise BadInput(
            "a while loop of unknown length multiplies matrices, so that its "
            "operations cannot be counted; write it as lax.scan or as a fori_loop of "
            "known length."
        )
    return 0


COUNTERS = {
    "dot_general": _dot,
    "conv_general_dilated": _conv,
    "scan": _scan,
    "cond": _cond,
    "shard_map": _shard_map,
    "while": _while,
}
