"""Foreign weight files -> arrays, without running anything that a file contains.

safetensors, one file or many with an index; torch's files, old and new, and TorchScript
archives through pickles.py, which knows tensors and nothing else.
"""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from dalle2_jax.components import load_arrays, read_json
from dalle2_jax.convert import views
from dalle2_jax.convert.pickle_calls import Bag
from dalle2_jax.convert.pickles import MOST_BYTES, load
from dalle2_jax.convert.views import AGAIN
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
MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of torch's older files
PACKED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
MOST_GROWTH = 8  # bytes of all members for a byte of the archive
BROKEN_ZIP = (  # what zipfile raises of damaged archives
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
)
WRAPPERS = ("module.", "_orig_mod.")  # in front of all keys: DDP's, torch.compile's


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
        return load_arrays(path, AGAIN)
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


def read_state(path: Path, notes: list[str] | None = None) -> dict[str, np.ndarray]:
    """`read`, for a file that is one flat dict of arrays, or has it as "state_dict".

    notes: gets a sentence for the user of what was left out.

    Raises:
        BadInput: as `read`, or there are no arrays.
    """
    return state_of(read(path), path, notes)


def state_of(
    tree: object, where: object, notes: list[str] | None = None
) -> dict[str, np.ndarray]:
    """The flat dict of arrays in what `read` gave; other entries are left out.

    Prefixes of WRAPPERS that all keys share are taken off, which `notes` gets told.

    Raises:
        BadInput: there are no arrays.
    """
    for wrapper in ("state_dict", "model"):
        if isinstance(tree, dict) and isinstance(tree.get(wrapper), dict):
            tree = tree[wrapper]
    arrays = tree if isinstance(tree, dict) else {}
    arrays = {
        key: value
        for key, value in arrays.items()
        if isinstance(key, str) and isinstance(value, np.ndarray)
    }
    if not arrays:
        raise BadInput(f"{where} holds no weights.")
    arrays, prefix = unwrapped(arrays)
    if prefix and notes is not None:
        notes.append(f"the prefix {prefix} of all keys of {where} was taken off.")
    return arrays


def unwrapped(state: dict) -> tuple[dict, str]:
    """(state without the prefixes of WRAPPERS that all its keys share, the prefix)."""
    taken, keys = "", [key for key in state if isinstance(key, str)]
    while len(keys) == len(state) > 0:
        shared = [w for w in WRAPPERS if all(k.startswith(taken + w) for k in keys)]
        if not shared:
            break
        taken += shared[0]
    return {key[len(taken) :]: state[key] for key in state} if taken else state, taken


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
    torch = _torch(path)
    return torch.save(_tensors(torch, tree), path)


def _sharded(index):
    """A model in several files, as its index lists them."""
    places = read_json(index, AGAIN).get("weight_map")
    names = places.values() if isinstance(places, dict) else [None]
    if not all(isinstance(name, str) for name in names):
        raise BadInput(
            f"{index} is no index of shards: weight_map must give the file of every "
            f"key; {AGAIN}."
        )
    state = {}
    for name in sorted(set(names)):
        if not name or Path(name).name != name or name.endswith(".index.json"):
            raise BadInput(
                f"{index} names {name}, which is not beside it or an index itself."
            )
        shard = read(index.with_name(name))
        shard = shard if isinstance(shard, dict) else {}
        for key in (key for key in places if places[key] == name):
            if key not in shard:
                raise BadInput(f"{index} expects {key} in {name}, which lacks it.")
            state[key] = shard[key]
    return state


def _archive(path):
    """torch's zip archives: data.pkl beside data/0, data/1, ..."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path)
            found = [name for name in members if name.endswith("/data.pkl")]
            if len(found) != 1:
                raise BadInput(f"{path} is a zip archive, but no file of torch's.")
            root = found[0].removesuffix("data.pkl")
            order = f"{root}byteorder"
            if order in members and archive.read(order) != b"little":
                raise BadInput(f"{path} is big-endian; convert it to safetensors.")
            if members[found[0]].file_size > MOST_BYTES:
                raise BadInput(f"{path} holds a pickle larger than a list of tensors.")
            saved = load(io.BytesIO(archive.read(found[0])), str(path))
            tree = views.resolved(
                saved, lambda one: archive.read(f"{root}data/{one.key}"), path
            )
    except BadInput:
        raise
    except BROKEN_ZIP as error:
        raise BadInput(
            f"{path} is incomplete or damaged ({error}); {AGAIN}."
        ) from error
    return views.flat_module(tree, path) if isinstance(tree, Bag) else tree


def _members(archive, path):
    """{name: ZipInfo}; refuses what would unpack to much more than the file.

    Members may overlap or be packed; torch stores its own one after another.
    """
    held = archive.infolist()
    members = {info.filename: info for info in held}
    whole = sum(max(info.file_size, info.compress_size) for info in held)
    packed = {info.compress_type for info in held}
    if whole > MOST_GROWTH * path.stat().st_size or packed - PACKED:
        raise BadInput(
            f"{path} would unpack to {whole:,} bytes, or is packed as torch does not "
            f"pack; {AGAIN}."
        )
    return members


def _legacy(path):
    """torch's files from before its zip archives: four pickles, keys, storages."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = io.BytesIO(file.read(MOST_BYTES))
        try:
            magic = load(head, str(path))
        except BadInput as error:
            raise BadInput(
                f"{path} cannot be read as weights: it is no safetensors and no torch "
                f"file; {AGAIN}."
            ) from error
        if magic != MAGIC:
            raise BadInput(f"{path} cannot be read as weights: no file of torch's.")
        found = {}
        _, _, saved, keys = (load(head, str(path), found) for _ in range(4))
        file.seek(head.tell())
        held = {}
        for key in keys if isinstance(keys, list) else ():
            one = found.get(key) if isinstance(key, str) else None
            if one is None or key in held:
                raise BadInput(f"{path} is damaged: it lists other storages; {AGAIN}.")
            count = int.from_bytes(file.read(8), "little")
            length = count * views.dtype_of(one).itemsize
            if length > size - file.tell():
                raise BadInput(f"{path} is incomplete or damaged; {AGAIN}.")
            held[key] = file.read(length)
    if missing := sorted(found.keys() - held.keys()):
        raise BadInput(f"{path} is damaged: it lacks storage {missing[0]}; {AGAIN}.")
    return views.resolved(saved, lambda one: held[one.key], path)


def _tensors(torch, tree):
    """The tree with torch's tensors in place of arrays."""
    if isinstance(tree, np.ndarray):
        return torch.from_numpy(tree.copy())
    if isinstance(tree, dict):
        return {key: _tensors(torch, value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(_tensors(torch, value) for value in tree)
    return tree


def _torch(path):
    try:
        import torch
    except ImportError as error:
        raise BadInput(
            f"{path} can only be written with torch: pip install 'dalle2_jax[torch]', "
            "or use safetensors."
        ) from error
    return torch
