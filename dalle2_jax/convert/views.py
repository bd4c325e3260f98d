"""Records of a pickle and the bytes of its storages -> numpy arrays.

Every array is a view of bytes of the file, checked against their number.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from dalle2_jax.convert.pickle_calls import Bag, NumpyArray, Storage, Tensor
from dalle2_jax.errors import BadInput

AGAIN = "download it again"
MOST_LEVELS = 64  # of dicts in dicts; state dicts have three
MOST_SHARED = 16  # times that all tensors together may show the bytes of the file
MOST_LETTERS = 10**7  # of all names of a TorchScript module


def dtype_of(storage: Storage) -> np.dtype:
    """The element type of a storage."""
    kind = ml_dtypes.bfloat16 if storage.kind == "bfloat16" else storage.kind
    return np.dtype(kind)


def resolved(tree: Any, read: Callable[[Storage], bytes], where: Path) -> Any:
    """The tree of `pickles.load` with arrays in place of tensors.

    read: the bytes of a storage; it is called once for each key.

    Raises:
        BadInput: a tensor beyond its storage, tensors that show the same bytes over
            and over, a container that holds itself, or one too deep.
    """
    held, shown = {}, []

    def array(tensor):
        storage = tensor.storage
        if storage.key not in held:
            held[storage.key] = read(storage)
        made = _view(tensor, held[storage.key], where)
        shown.append(made.nbytes)
        return made

    made = _walk(tree, array, where, {}, 0)
    if sum(shown) > MOST_SHARED * sum(map(len, held.values())):
        raise BadInput(f"{where} repeats its numbers too often; {AGAIN}.")
    return made


def flat_module(module: Bag, where: Path) -> dict[str, np.ndarray]:
    """A TorchScript module as {dotted name: array}; its own numbers become arrays.

    Raises:
        BadInput: more names than a module can have (its parts may be shared).
    """
    flat, waiting, letters = {}, [("", module)], 0
    while waiting:
        path, bag = waiting.pop()
        for name, value in bag.fields.items():
            name = str(name)
            letters += len(path) + len(name) + 1
            if letters > MOST_LETTERS:
                raise BadInput(f"{where} holds too many names; {AGAIN}.")
            if isinstance(value, Bag):
                waiting.append((f"{path}{name}.", value))
            elif isinstance(value, np.ndarray):
                flat[f"{path}{name}"] = value
            elif type(value) is int and not path:
                flat[name] = np.asarray(value)
    return flat


def _walk(tree, one, where, done, level):
    """The tree with `one` applied to tensors, each container visited once.

    done: {id: result, None while it is being made}; the tree keeps the ids alive.
    An Inert is left as it is: nobody reads what it was given.
    """
    if isinstance(tree, NumpyArray):
        return tree.value
    if not isinstance(tree, (Tensor, Bag, dict, list, tuple)):
        return tree
    if level > MOST_LEVELS:
        raise BadInput(f"{where} nests deeper than weights do; {AGAIN}.")
    if id(tree) in done:
        if done[id(tree)] is None:
            raise BadInput(f"{where} holds a part that holds itself; {AGAIN}.")
        return done[id(tree)]
    done[id(tree)] = None
    below = (one, where, done, level + 1)
    if isinstance(tree, Tensor):
        made = one(tree)
    elif isinstance(tree, Bag):
        made = Bag(_walk(tree.fields, *below))
    elif isinstance(tree, dict):
        made = {key: _walk(value, *below) for key, value in tree.items()}
    else:
        made = type(tree)(_walk(value, *below) for value in tree)
    done[id(tree)] = made
    return made


def _view(tensor, data, where):
    """torch's view of a storage, kept within its bytes."""
    dtype = dtype_of(tensor.storage)
    flat = np.frombuffer(data, dtype, len(data) // dtype.itemsize)
    offset, size, stride = tensor.offset, tensor.size, tensor.stride
    reach = offset + sum((n - 1) * step for n, step in zip(size, stride))
    empty = 0 in size and math.prod(n or 1 for n in size) < 2**48
    outside = not empty and (reach >= len(flat) or math.prod(size) > len(flat))
    if outside or tensor.storage.count * dtype.itemsize > len(data):
        raise BadInput(
            f"{where} is no file of tensors: one of shape {list(size)} is larger than "
            f"its storage; {AGAIN}."
        )
    if empty:
        return np.zeros(size, dtype)
    steps = [step * dtype.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(flat[offset:], size, steps)
