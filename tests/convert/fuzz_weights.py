"""Mutations of small valid weight files, read one after another in limited memory.

Run as `python fuzz_weights.py FOLDER CASES SEED`: FOLDER holds `files/` (one file per
container) and `sources/` (folders that can be imported); CASES are made of each.
Prints {kind: [tried, refused, read]}; anything but a value or one sentence ends it.
"""

import copy
import io
import json
import random
import resource
import shutil
import struct
import sys
import tempfile
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np

from dalle2_jax.components import load_component
from dalle2_jax.convert import containers, pickle_calls, pickles, views
from dalle2_jax.convert.importer import import_weights
from dalle2_jax.errors import BadInput

MEMORY = 400 * 2**20  # above what the process holds when it begins
NUMBERS = [0, 1, 2, 7, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1]
VALUES = [
    *(None, True, False, -1, 0, 1, 3, 10**9, 10**400, 2**63, 1.5, -0.0, 1e308, "", "x"),
    *(float("nan"), float("inf"), [], [[]], {}, {"a": {}}, [1], [0] * 4, ["x"], "1"),
    *([10**9] * 4, [-1] * 4, [None], [1e400], {"0": 1}, "gelu", "\0", "\ud800", [[1]]),
]
FRAGMENTS = [  # opcodes and keys that a blind change would seldom make
    *(
        b"b",
        b"R",
        b"\x81",
        b"Q",
        b"0",
        b"2",
        b"a",
        b"e",
        b"s",
        b"u",
        b"h\x00",
        b")",
        b"]",
    ),
    *(b"}", b"N", b"\x88", b"(", b"t", b"l", b"d", b"r\xff\xff\xff\x7f", b"\x82\x01"),
    *(b"ctorch\nFloatStorage\n", b"ctorch\nBFloat16Storage\n", b"cos\nsystem\n"),
    *(b"cnumpy\ndtype\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"c__torch__\nM\n"),
]


def changed(rng, data):
    """The bytes after one to four random changes."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            del data[at : at + rng.choice((1, 2, 9, 100))]
        elif kind == 3:
            data[at:at] = rng.choice(FRAGMENTS)
        elif kind == 4:
            number = rng.choice(NUMBERS).to_bytes(8, "little")
            data[at : at + 8] = number[: rng.choice((1, 2, 4, 8))]
        elif kind == 5:
            other = rng.randrange(len(data) + 1)
            data[at:at] = data[other : other + rng.choice((3, 20, 200))]
        elif at:
            del data[at:]
    return bytes(data)


def changed_archive(rng, data):
    """A zip archive with one of its members changed, whose checksums are right."""
    if rng.random() < 0.15:
        return changed(rng, data)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        names = [n for n in old.namelist() if "/code/" not in n]
        chosen = next(n for n in names if n.endswith("data.pkl"))
        chosen = chosen if rng.random() < 0.8 else rng.choice(names)
        for name in names:
            held = old.read(name)
            new.writestr(name, changed(rng, held) if name == chosen else held)
    return made.getvalue()


def changed_header(rng, data):
    """A safetensors file with a field of its header changed."""
    if rng.random() < 0.3:
        return changed(rng, data)
    length = struct.unpack("<Q", data[:8])[0]
    fields = changed_json(rng, json.loads(data[8 : 8 + length]))
    text = json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def changed_json(rng, tree):
    """The tree with one value, at any depth, replaced, renamed or left out."""
    tree = copy.deepcopy(tree)
    places = []

    def walk(node):
        for key in range(len(node)) if isinstance(node, list) else list(node):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    walk(tree)
    if not places or rng.random() < 0.05:
        return rng.choice(VALUES)
    node, key = rng.choice(places)
    kind = rng.randrange(8)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[str(key) + "x"] = node.pop(key)
    elif kind == 2 and type(node[key]) is int:
        node[key] = rng.choice((-1, node[key] + 1, node[key] * 2, 2**20, 10**9))
    else:
        node[key] = rng.choice(VALUES)
    return tree


def changed_text(rng, data):
    """A JSON file changed as a tree or, now and then, as bytes."""
    if rng.random() < 0.1:
        return changed(rng, data)
    return json.dumps(changed_json(rng, json.loads(data))).encode()


def check_values(tree, data):
    """No array holds a number whose bytes are not in the file, in either order."""
    for value in tree.values() if isinstance(tree, dict) else ():
        if isinstance(value, np.ndarray) and value.size and value.ndim:
            raw = np.ascontiguousarray(value).view(f"V{value.itemsize}").ravel()
            for one in {item.tobytes() for item in raw[:300]}:
                text = one.decode("latin-1").encode()  # numpy's own arrays are so
                orders = (one, one[::-1], text)
                assert any(o in data for o in orders), "a number from elsewhere"


def files(folder, cases, rng):
    """Every container, as bytes: read, and its values compared with the file."""
    changes = {".safetensors": changed_header, ".json": changed_text, ".old": changed}
    for path in sorted((folder / "files").iterdir()):
        if not path.name.startswith("shard"):
            change = changes.get(path.suffix, changed_archive)
            yield path.name, cases, lambda p=path, c=change: read(p, c, rng)


def read(path, change, rng):
    """One changed file, read beside the original; its data compared."""
    data = change(rng, path.read_bytes())
    place = path.with_name(f"m{path.name}")
    place.write_bytes(data)
    try:
        tree = containers.read(place)
        if path.suffix != ".json":
            check_values(tree, data)
        containers.state_of(tree, place)
    finally:
        place.unlink()


def sources(folder, cases, rng):
    """Every JSON file of folders that are imported, or loaded as our own."""
    for source in sorted((folder / "sources").iterdir()):
        for path in sorted(source.rglob("*.json")):
            name = f"{source.name}/{path.relative_to(source)}"
            if path.name not in ("vocab.json", "dalle2.json", "tokenizer_config.json"):
                yield name, cases, lambda s=source, p=path: taken(s, p, rng)


def taken(source, path, rng):
    """One import, or load, of a source with a changed JSON file."""
    whole = path.read_bytes()
    path.write_bytes(changed_text(rng, whole))
    try:
        if (source / "dalle2.json").is_file():
            load_component(source, path.parent.name)
        else:
            import_weights(source, source.parent / "never", dry=True)
            assert not (source.parent / "never").exists()
    finally:
        path.write_bytes(whole)


def attributes():
    """What our modules and their classes and functions hold."""
    found = {}
    for part in (containers, pickles, pickle_calls, views):
        for name, value in vars(part).items():
            inner = sorted(getattr(value, "__dict__", ()))
            found[part.__name__, name] = inner, getattr(value, "__defaults__", None)
    return found


def limit_memory():
    """From here on MEMORY more, and not a page beyond it."""
    status = Path("/proc/self/status").read_text().split("\n")
    used = next(int(line.split()[1]) for line in status if line.startswith("VmData"))
    most = 1024 * used + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def main(folder, cases, imports, seed):
    """Runs everything; returns {kind: [tried, refused, read]}."""
    rng, counts, before = random.Random(seed), {}, attributes()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(folder, Path(place) / "all"))
        for source in (folder / "sources").iterdir():  # what a legitimate read needs
            if not (source / "dalle2.json").is_file():
                import_weights(source, source.parent / "never", dry=True)
        limit_memory()
        jobs = [*files(folder, cases, rng), *sources(folder, imports, rng)]
        for name, count, job in jobs:
            counts[name] = [count, 0, 0]
            for i in range(count):
                try:
                    job()
                    counts[name][2] += 1
                except BadInput as error:
                    counts[name][1] += 1
                    assert str(error) and "\n" not in str(error).strip(), str(error)
                except BaseException as error:
                    error.add_note(f"case {i} of {name}")
                    raise
    assert attributes() == before
    assert np.dtype(ml_dtypes.bfloat16).itemsize == 2
    return counts


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
