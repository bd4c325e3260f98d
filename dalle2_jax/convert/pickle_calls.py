"""What a file of tensors can make: inert records, and the calls that make them.

Nothing here touches a class of torch, numpy or the interpreter on a file's behalf; a
call checks its arguments and gives plain values or records.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

STORAGES = {  # torch's names of storages -> the element type
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}
NUMBERS = {"b1", "f2", "f4", "f8"} | {
    f"{sign}{n}" for sign in "iu" for n in (1, 2, 4, 8)
}
INERT = ("packaging.", "pytorch_warmup.", "torch.optim.")  # in trainers' checkpoints
MOST_AXES = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Name:
    """A class or function that a pickle names; it stands for itself alone."""

    module: str
    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """A run of `count` elements of type `kind` under `key` in the file."""

    kind: str
    key: str
    count: int


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """torch's view of a storage; offset and stride count elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclasses.dataclass(eq=False)
class Bag:
    """What stands for any TorchScript object: its attributes."""

    fields: dict


@dataclasses.dataclass(eq=False)
class NumpyType:
    """An element type as numpy writes it, "f8", and its byte order."""

    code: str
    order: str = "="


@dataclasses.dataclass(eq=False)
class NumpyArray:
    """An array of numbers as numpy pickles it; None until its bytes are read."""

    value: np.ndarray | None = None


@dataclasses.dataclass(eq=False)
class Inert:
    """What stands for the objects of INERT: what they were given, nothing they do."""

    arguments: tuple
    state: Any = None

    def __str__(self):
        """Of packaging's Version: its release, "1.10.4"; "" of anything else."""
        found = self.state
        if isinstance(found, dict):  # until packaging 25
            found = getattr(found.get("_version"), "arguments", None)
        release = found[1] if isinstance(found, tuple) and len(found) > 1 else ()
        whole = isinstance(release, tuple) and all(type(n) is int for n in release)
        return ".".join(map(str, release)) if whole else ""


def set_items(into, keys, values):
    """Sets items; keys are scalars, since hashing a deep tuple has no bound."""
    if len(keys) != len(values):
        raise ValueError("a key without a value")
    for key, value in zip(keys, values):
        if not isinstance(key, (str, int, float, bytes, type(None))):
            raise ValueError("a key that is no name or number")
        into[key] = value


def byte_order(state):
    """numpy's byte order of (version, order, None, None, None, ...)."""
    plain = isinstance(state, tuple) and len(state) >= 5 and state[2:5] == (None,) * 3
    if not plain or state[1] not in ("<", ">", "=", "|"):
        raise ValueError("an element type that is not one of plain numbers")
    return state[1]


def array_of(machine, state):
    """numpy's (version, shape, type, column order, bytes) -> array."""
    if not isinstance(state, tuple) or len(state) != 5:
        raise ValueError("an array without shape and bytes")
    _, shape, kind, columns, data = state
    if not (isinstance(shape, tuple) and are_sizes(shape)):
        raise ValueError("an array with an impossible shape")
    kind, data = _dtype(kind), _bytes(data)
    machine.copying(len(data))
    if len(data) != math.prod(shape) * kind.itemsize:
        raise ValueError("an array of another size than its bytes")
    flat = np.frombuffer(data, kind).astype(kind.newbyteorder("="))
    return flat.reshape(shape, order="F" if columns is True else "C")


def _dtype(kind):
    if not isinstance(kind, NumpyType):
        raise ValueError("an element type that is not one of plain numbers")
    return np.dtype(kind.order + kind.code)


def _bytes(data):
    """bytes; Python 2 had them as text."""
    data = data.encode("latin-1") if isinstance(data, str) else data
    if not isinstance(data, bytes):
        raise ValueError("numbers without bytes")
    return data


def are_sizes(values):
    """Whether these can be sizes, offsets or strides of a tensor."""
    whole = all(type(n) is int and 0 <= n < 2**48 for n in values)
    return whole and len(values) <= MOST_AXES


def _make_tensor(machine, storage, offset, size, stride, *_):
    whole = isinstance(size, tuple) and isinstance(stride, tuple)
    whole = whole and len(size) == len(stride) and isinstance(storage, Storage)
    if not whole or not all(are_sizes(part) for part in ([offset], size, stride)):
        raise ValueError("a tensor that is no view of a storage")
    return Tensor(storage, offset, size, stride)


def _make_parameter(machine, data, *_):
    if not isinstance(data, Tensor):
        raise ValueError("a parameter that is no tensor")
    return data


def _make_dict(machine, pairs=()):
    pairs = pairs if isinstance(pairs, (list, tuple)) else [()]
    if any(not isinstance(p, (list, tuple)) or len(p) != 2 for p in pairs):
        raise ValueError("a dict that is not made of pairs")
    machine.copying(100 * len(pairs))
    made = {}
    set_items(made, [key for key, _ in pairs], [value for _, value in pairs])
    return made


def _make_list(machine, values, *_):
    if not isinstance(values, (list, dict)):
        raise ValueError("a list that is none")
    return values


def _make_size(machine, values):
    if not isinstance(values, tuple):
        raise ValueError("a size that is no tuple")
    return values


def _make_bytes(machine, text, encoding):
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes that are not written as latin1")
    machine.copying(len(text))
    return text.encode("latin-1")


def _make_type(machine, code, *_):
    if not isinstance(code, str) or code not in NUMBERS:
        raise ValueError("an element type that is not one of plain numbers")
    return NumpyType(code)


def _make_scalar(machine, kind, data):
    kind, data = _dtype(kind), _bytes(data)
    if len(data) != kind.itemsize:
        raise ValueError("a number of another size than its type")
    return np.frombuffer(data, kind)[0].item()


class Call(NamedTuple):
    """make(machine, *arguments), with `least` to `most` arguments."""

    make: Any
    least: int
    most: int


CALLS = {
    ("collections", "OrderedDict"): Call(_make_dict, 0, 1),
    ("collections", "defaultdict"): Call(lambda machine, *_: {}, 0, 1),
    ("builtins", "dict"): Call(_make_dict, 0, 1),
    ("__builtin__", "dict"): Call(_make_dict, 0, 1),
    ("builtins", "bytes"): Call(lambda machine: b"", 0, 0),
    ("__builtin__", "bytes"): Call(lambda machine: b"", 0, 0),
    ("_codecs", "encode"): Call(_make_bytes, 2, 2),
    ("torch._utils", "_rebuild_tensor"): Call(_make_tensor, 4, 4),
    ("torch._utils", "_rebuild_tensor_v2"): Call(_make_tensor, 6, 7),
    ("torch._utils", "_rebuild_parameter"): Call(_make_parameter, 3, 3),
    ("torch", "Size"): Call(_make_size, 1, 1),
    ("torch.jit._pickle", "restore_type_tag"): Call(_make_list, 2, 2),
    ("numpy", "dtype"): Call(_make_type, 1, 3),
} | {  # lists inside TorchScript objects
    ("torch.jit._pickle", f"build_{kind}list"): Call(_make_list, 1, 1)
    for kind in ("int", "double", "bool", "tensor")
}
TOKENS = {  # arguments of calls, or followed by a type that is refused by its name
    ("numpy", "ndarray"),
    ("torch.storage", "UntypedStorage"),
    ("torch._utils", "_rebuild_tensor_v3"),
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # before, since 2
    CALLS[_module, "scalar"] = Call(_make_scalar, 2, 2)
    CALLS[_module, "_reconstruct"] = Call(lambda machine, *_: NumpyArray(), 3, 3)
