"""Foreign weight files -> arrays, without running anything that a file contains.

safetensors, one file or many with an index; torch's zip archives, TorchScript too,
through an unpickler that knows tensors and nothing else; torch's older files by
`torch.load(weights_only=True)`.
"""

import collections
import json
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from dalle2_jax.errors import BadInput

NAMES = [  # what the weights of one network are called in a folder, best first
    f"{stem}{kind}"
    for kind in (".safetensors", ".safetensors.index.json", ".fp16.safetensors")
    for stem in ("diffusion_pytorch_model", "model", "open_clip_model")
] + [
    f"{stem}{kind}"
    for kind in (".bin", ".bin.index.json", ".fp16.bin")
    for stem in ("diffusion_pytorch_model", "pytorch_model", "open_clip_pytorch_model")
]
STORAGES = {  # torch's names of element types
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
AGAIN = "download it again"


def read(path):
    """What a weight file holds: nested dicts, lists and tuples with numpy arrays.

    path: .safetensors, *.index.json of a sharded model, or any torch file. A
    TorchScript module becomes a flat dict of its parameters, buffers and numbers.

    Raises:
        BadInput: absent, incomplete, of another kind, or a pickle that asks for more
            than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path} does not exist; {AGAIN}.")
    if path.name.endswith(".index.json"):
        return _sharded(path)
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise BadInput(
            f"{path} is a git-lfs pointer; fetch the file that it stands for."
        )
    if path.suffix == ".safetensors":
        return _safetensors(path)
    if start.startswith(b"PK"):
        return _archive(path)
    return _legacy(path)


def weights_in(folder):
    """The weight file of one network's folder.

    Raises:
        BadInput: there is none under a known name.
    """
    for name in NAMES:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise BadInput(f"{folder} holds no weights (such as {NAMES[0]}); {AGAIN}.")


def read_state(path):
    """`read`, for a file that is one flat dict of arrays, or has it as "state_dict"."""
    return state_of(read(path), path)


def state_of(tree, where):
    """The flat dict of arrays in what `read` gave; other entries are left out."""
    for wrapper in ("state_dict", "model"):
        if isinstance(tree, dict) and isinstance(tree.get(wrapper), dict):
            tree = tree[wrapper]
    arrays = tree if isinstance(tree, dict) else {}
    arrays = {k: v for k, v in arrays.items() if isinstance(v, np.ndarray)}
    if not arrays:
        raise BadInput(f"{where} holds no weights.")
    return arrays


def dtypes_of(state):
    """The names of the element types of a state's floating arrays, sorted."""
    kinds = {a.dtype for a in state.values() if a.dtype.kind not in "iub"}
    return sorted(str(kind) for kind in kinds)


def write(path, tree):
    """Writes a flat dict of arrays as .safetensors, or any tree as a torch file.

    Raises:
        BadInput: a torch file is wanted and torch is not installed.
    """
    if Path(path).suffix == ".safetensors":
        # safetensors 0.8.0 writes wrong values for strided arrays, hence contiguous.
        state = {key: np.asarray(a, order="C") for key, a in tree.items()}
        return save_file(state, path, metadata={"format": "pt"})
    torch = _torch(path, "written")
    return torch.save(
        _map(lambda a: torch.from_numpy(a.copy()), np.ndarray, tree), path
    )


def _safetensors(path):
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadInput(
            f"{path} is incomplete or damaged ({error}); {AGAIN}."
        ) from error


def _sharded(index):
    """A model in several files, as its index lists them."""
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError) as error:
        raise BadInput(f"{index} is no index of shards; {AGAIN}.") from error
    state = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name:
            raise BadInput(f"{index} names {name}, which is not beside it.")
        shard = read(index.with_name(name))
        for key in (key for key in places if places[key] == name):
            if key not in shard:
                raise BadInput(f"{index} expects {key} in {name}, which lacks it.")
            state[key] = shard[key]
    return state


class _Module:
    """What stands for any TorchScript object: a bag of attributes."""


class _Inert:
    """What stands for the objects in INERT: what they were given, nothing they do."""

    def __new__(cls, *arguments):
        made = object.__new__(cls)
        made.arguments, made.state = arguments, ()
        return made

    def __setstate__(self, state):
        self.state = state

    def __str__(self):
        """Of packaging's Version: its release, "1.10.4"."""
        found = self.state
        if isinstance(found, dict) and "_version" in found:  # until packaging 25
            found = found["_version"].arguments
        release = found[1] if isinstance(found, tuple) and found else ()
        return ".".join(map(str, release))


class _Unpickler(pickle.Unpickler):
    """Rebuilds tensors; every name beyond ALLOWED and INERT is refused."""

    def __init__(self, file, storage, where):
        super().__init__(file)
        self.storage, self.where = storage, where

    def find_class(self, module, name):
        """The few names that a file of tensors needs."""
        if module == "torch" and name in STORAGES:
            return np.dtype(STORAGES[name])
        if module.startswith("__torch__"):
            return _Module
        if module.startswith(INERT):
            return _Inert
        if (module, name) not in ALLOWED:
            raise BadInput(
                f"{self.where} asks for {module}.{name}, which is no tensor and was "
                "not run; convert the file to safetensors where it comes from."
            )
        return ALLOWED[module, name]

    def persistent_load(self, pid):
        """The flat array of one storage: ("storage", dtype, member, device, count)."""
        _, dtype, member, _, _ = pid
        return self.storage(str(member), dtype)


def _tensor(storage, offset, size, stride, *_):
    """torch's view of a storage, kept within its bounds."""
    reach = offset + sum((n - 1) * s for n, s in zip(size, stride))
    if min((offset, *size, *stride), default=0) < 0 or len(size) != len(stride):
        raise ValueError("a tensor with negative sizes")
    if 0 in size:
        return np.zeros(size, storage.dtype)
    if reach >= len(storage):
        raise ValueError("a tensor larger than its storage")
    strides = [s * storage.itemsize for s in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides)


INERT = ("packaging.", "pytorch_warmup.", "torch.optim.")  # in trainers' checkpoints
ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    ("builtins", "dict"): dict,
    ("__builtin__", "dict"): dict,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch", "Size"): tuple,
    ("torch.jit._pickle", "restore_type_tag"): lambda value, _: value,
} | {  # lists inside TorchScript objects
    ("torch.jit._pickle", f"build_{kind}list"): lambda values: values
    for kind in ("int", "double", "bool", "tensor")
}


def _archive(path):
    """torch's zip archives: data.pkl beside data/0, data/1, ..."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            found = [name for name in members if name.endswith("/data.pkl")]
            if len(found) != 1:
                raise BadInput(f"{path} is a zip archive, but no file of torch's.")
            root = found[0].removesuffix("data.pkl")
            order = f"{root}byteorder"
            if order in members and archive.read(order) != b"little":
                raise BadInput(f"{path} is big-endian; convert it to safetensors.")

            def storage(member, dtype):
                return np.frombuffer(archive.read(f"{root}data/{member}"), dtype)

            with archive.open(found[0]) as file:
                tree = _Unpickler(file, storage, path).load()
    except BadInput:
        raise
    except (zipfile.BadZipFile, pickle.UnpicklingError, EOFError, KeyError) as error:
        raise BadInput(
            f"{path} is incomplete or damaged ({error}); {AGAIN}."
        ) from error
    except (ValueError, TypeError, AttributeError, IndexError, OSError) as error:
        raise BadInput(f"{path} is no file of tensors ({error}); {AGAIN}.") from error
    return _flat_module(tree) if isinstance(tree, _Module) else tree


def _flat_module(module, path=""):
    """TorchScript attributes, dotted; numbers become arrays."""
    flat = {}
    for name, value in vars(module).items():
        if isinstance(value, _Module):
            flat |= _flat_module(value, f"{path}{name}.")
        elif isinstance(value, np.ndarray):
            flat[f"{path}{name}"] = value
        elif isinstance(value, int) and not isinstance(value, bool) and not path:
            flat[name] = np.asarray(value)
    return flat


def _legacy(path):
    """torch's files from before its zip archives."""
    torch = _torch(path, "read")
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no common class for what it refuses
        reason = str(error).split("\n")[0]
        raise BadInput(
            f"{path} cannot be read as weights without running code ({reason})."
        ) from error

    def numpy(tensor):
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.detach().numpy()

    return _map(numpy, torch.Tensor, tree)


def _map(function, kind, tree):
    """The tree with `function` applied to what is of a kind."""
    if isinstance(tree, kind):
        return function(tree)
    if isinstance(tree, dict):
        return {key: _map(function, kind, value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(_map(function, kind, value) for value in tree)
    return tree


def _torch(path, done):
    try:
        import torch
    except ImportError as error:
        raise BadInput(
            f"{path} can only be {done} with torch: pip install 'dalle2_jax[torch]', "
            "or use safetensors."
        ) from error
    return torch
