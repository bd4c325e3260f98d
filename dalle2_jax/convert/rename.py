"""The engine: a table of rows x a flat dict of foreign weights <-> our parameter tree.

A row says which foreign tensor becomes which leaves of ours and in which layout; the
same row read from right to left exports. Nothing is guessed: a key without a row, a row
without a key, a leaf without a row and a wrong shape are errors that name the key.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dalle2_jax.components import FLOATS
from dalle2_jax.errors import BadInput

MOST_ADDED = 2**20  # numbers in our leaves that a foreign tensor lacks (a blank bias)


class Layout(NamedTuple):
    """How a foreign array and our arrays hold the same numbers.

    ours: array -> list of arrays; theirs: list of arrays -> array. Inverse to each
    other.
    """

    ours: Callable
    theirs: Callable


class Row(NamedTuple):
    """theirs: foreign key, "{i}" where it counts layers; ours: our paths.

    layers > 0: the row stands for that many tensors, stacked in our leaves' first axis.
    """

    theirs: str
    ours: tuple[str, ...]
    layout: Layout
    layers: int = 0


def _one(ours, theirs):
    return Layout(lambda a: [ours(a)], lambda parts: theirs(parts[0]))


SAME = _one(lambda a: a, lambda a: a)
LINEAR = _one(lambda a: a.T, lambda a: a.T)  # (out, in) <-> [in, out]
CONV = _one(  # (out, in, y, x) <-> [y, x, in, out]
    lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)
)
CONV_1 = _one(lambda a: a[..., 0].T, lambda a: a.T[..., None])  # (out, in, 1)


def ones_in_front(count):
    """(1, ..., 1, n) <-> [n], with `count` axes of length 1."""
    index = (0,) * count
    return _one(lambda a: a[index], lambda a: a[(None,) * count])


def fused(parts, heads, each):
    """Several projections in one tensor, along its rows.

    heads = 0: whole blocks (q, k, v), each for all heads; else per head (head, part,
    e). each: the layout of one part.
    """

    def ours(a):
        rows, rest = len(a) // parts, a.shape[1:]
        if heads:
            a = a.reshape(heads, parts, rows // heads, *rest).swapaxes(0, 1)
        return [each.ours(part)[0] for part in a.reshape(parts, rows, *rest)]

    def theirs(arrays):
        a = np.stack([each.theirs([part]) for part in arrays])
        if heads:
            a = a.reshape(parts, heads, -1, *a.shape[2:]).swapaxes(0, 1)
            return a.reshape(-1, *a.shape[3:])
        return a.reshape(-1, *a.shape[2:])

    return Layout(ours, theirs)


def channel_major(count, each):
    """Rows (channel, token) <-> (token, channel) for `count` tokens."""

    def ours(a):
        a = a.reshape(-1, count, *a.shape[1:]).swapaxes(0, 1)
        return each.ours(a.reshape(-1, *a.shape[2:]))

    def theirs(parts):
        a = each.theirs(parts)
        a = a.reshape(count, -1, *a.shape[1:]).swapaxes(0, 1)
        return a.reshape(-1, *a.shape[2:])

    return Layout(ours, theirs)


def weights(theirs, ours, layout, layers=0, bias=True):
    """Rows of a dense layer or convolution: weight -> kernel, bias -> bias."""
    rows = [Row(f"{theirs}.weight", (f"{ours}/kernel",), layout, layers)]
    return rows + [Row(f"{theirs}.bias", (f"{ours}/bias",), SAME, layers)] * bias


def norm(theirs, ours, layers=0):
    """Rows of a normalisation: weight -> scale, bias -> bias."""
    return [
        Row(f"{theirs}.weight", (f"{ours}/scale",), SAME, layers),
        Row(f"{theirs}.bias", (f"{ours}/bias",), SAME, layers),
    ]


def import_params(state, rows, shapes, where="weights", ignored=(), nonfinite=False):
    """Foreign weights -> our tree of float32 numpy arrays.

    state: {key: array}; rows: the table; shapes: our tree (arrays or
    ShapeDtypeStructs). ignored: keys that hold no weights. where: what the errors call
    the file. nonfinite: take values that are infinite or no numbers too.

    Raises:
        BadInput: a missing or left-over key, a wrong shape, whole numbers where floats
            belong, values that are not finite, a leaf that nothing fills.
    """
    flat = {path: tuple(leaf.shape) for path, leaf in flat_paths(shapes).items()}
    named = {path for row in rows for path in row.ours}
    if unfilled := sorted(set(flat) - named):
        raise BadInput(f"{where}: no key fills our parameter {unfilled[0]}.")
    leaves, used = {}, set(ignored)
    for row in rows:
        layers = []
        for key in keys(row):
            used.add(key)
            layers.append(_layer(state, key, row, flat, where))
            if row.ours and not nonfinite:
                _check_finite(layers[-1], key, where)
        for path, parts in zip(row.ours, zip(*layers)):
            leaf = np.stack(parts) if row.layers else parts[0]
            leaves[path] = np.asarray(leaf, np.float32, order="C")
    if left := sorted(set(state) - used):
        raise BadInput(
            f"{where}: {left[0]} (one of {len(left)}) has no place in the model."
        )
    return unflatten_dict(leaves, sep="/")


def export_params(params, rows):
    """Our tree -> {foreign key: contiguous float32 array}; import read backwards."""
    flat, state = flat_paths(params), {}
    for row in rows:
        parts = [np.asarray(flat[path], np.float32) for path in row.ours]
        for i, key in enumerate(keys(row)):
            layer = [part[i] for part in parts] if row.layers else parts
            state[key] = np.asarray(row.layout.theirs(layer), order="C")
    return state


def shape_of(state, key, axes):
    """The shape of a foreign array that sizes are read from.

    Raises:
        BadInput: it is missing, or has another number of axes.
    """
    shape = np.shape(state[key]) if key in state else None
    if shape is None or len(shape) != axes:
        found = "missing" if shape is None else f"of shape {shape}"
        raise BadInput(f"the key {key} is {found}; it has {axes} axes in such a model.")
    return shape


def keys(row):
    """The foreign keys that a row stands for, one after another."""
    if row.layers <= 0:
        yield row.theirs
    for i in range(row.layers):
        yield row.theirs.format(i=i)


def flat_paths(tree):
    """Nested dict -> {"a/b/c": leaf}."""
    return flatten_dict(tree, sep="/")


def _layer(state, key, row, flat, where):
    """The parts of one foreign tensor, its shape checked against our leaves'."""
    if key not in state:
        raise BadInput(f"{where}: the key {key} is missing.")
    skip = 1 if row.layers else 0
    missing = [path for path in row.ours if path not in flat]
    if missing:
        raise BadInput(
            f"{where}: {key} belongs to {missing[0]}, which the model lacks."
        )
    array = np.asarray(state[key])
    shapes = [flat[path][skip:] for path in row.ours]
    asked = sum(math.prod(shape) for shape in shapes)
    if asked > 2 * array.size + MOST_ADDED:  # no layout adds more; before it allocates
        raise BadInput(
            f"{where}: {key} has shape {array.shape}, expected {asked:,} numbers."
        )
    blanks = [np.broadcast_to(np.float32(0), shape) for shape in shapes]
    expected = row.layout.theirs(blanks).shape
    if array.shape != expected:
        raise BadInput(f"{where}: {key} has shape {array.shape}, expected {expected}.")
    if row.ours and array.dtype.name not in FLOATS:
        raise BadInput(
            f"{where}: {key} holds {array.dtype}, and weights are floats; save it as "
            "float32, float16 or bfloat16."
        )
    return row.layout.ours(array)


def _check_finite(parts, key, where):
    for part in parts:
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite
            finite = np.isfinite(np.asarray(part, np.float32)).all()
        if not finite:
            raise BadInput(
                f"{where}: {key} holds values that are infinite or no numbers; take "
                "another checkpoint, or keep them with --allow-nonfinite."
            )
