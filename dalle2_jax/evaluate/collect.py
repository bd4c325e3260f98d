"""Features of many pictures, taken by any number of processes, continued after a stop.

A set is parted into units of pictures that lie next to each other; a unit is the
share of one device in one program, so that its features do not depend on who computes
them. Every process writes the units that it has done as files of their own, whole or
not at all, into one folder that all processes see.
"""

import contextlib
import hashlib
import json
import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from dalle2_jax.components import read_json, write_json
from dalle2_jax.errors import BadInput, Failed, Preempted
from dalle2_jax.evaluate.features import extract
from dalle2_jax.files import Lock, replacing
from dalle2_jax.shard.processes import barrier, is_first

GONE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)


class Pace(NamedTuple):
    """How a set is gone through.

    unit: pictures per device and program; batch: pictures between two saves; stop:
    asked after every batch by all processes alike, whether to leave; show: called with
    the pictures of the set that are done by about now.
    """

    unit: int = 16
    batch: int = 64
    stop: Callable = lambda: False
    show: Callable = lambda done: None


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """A folder that the processes of one evaluation work in, and of no second one.

    Raises:
        BadInput: another evaluation that lives works in it; names its process.
    """
    if not is_first():
        yield
        return
    with Lock(folder, "give another --work"):
        yield


def claim(folder, settings):
    """Makes a folder this evaluation's own, or refuses one of another evaluation.

    Args:
        folder: of the work; made where it is absent.
        settings: JSON-able, all that the features depend on.

    Raises:
        BadInput: it holds parts made with other settings; names the first.
    """
    path, settings = Path(folder) / "settings.json", json.loads(json.dumps(settings))
    if is_first() and not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
    barrier("work folder claimed")
    found = read_json(path, "all processes must see the same --work folder")
    field = difference(settings, found)
    if field:
        raise BadInput(
            f"{folder} holds parts of an evaluation with another {field}; give another "
            "--work, or remove it."
        )


def difference(ours, theirs, where=""):
    """The first field, dotted, in which two JSON-able values differ, or None."""
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        return None if ours == theirs else where
    names = {**ours, **theirs}
    inner = (
        difference(ours.get(k), theirs.get(k), f"{where}.{k}" if where else k)
        for k in names
    )
    return next((name for name in inner if name), None)


def collect(folder, pictures, extractors, pace, keep=None):
    """Features of a set of pictures; every process of the run calls it.

    Args:
        folder: where the parts are, and what is there already counts.
        pictures: PictureSet.
        extractors: {name: Extractor}.
        pace: Pace.
        keep: called with (number, picture uint8 [y, x, 3]) for every picture, or None.

    Returns:
        {"NAME.KEY": [count, ...] of every extractor's keys, "sha256": [count, 32]}, on
        process 0, else None.

    Raises:
        Preempted: pace.stop said so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    units = math.ceil(pictures.count / pace.unit)
    todo = sorted(set(range(units)) - set(done(folder)))
    barrier("work is listed")
    mine = todo[jax.process_index() :: jax.process_count()]
    devices = jax.local_devices()[:units]
    size = math.ceil(pace.batch / (pace.unit * len(devices))) * len(devices)
    turns = math.ceil(math.ceil(len(todo) / jax.process_count()) / size)
    for turn in range(turns):
        some = mine[turn * size : (turn + 1) * size]
        if some:
            _take(folder, pictures, extractors, pace.unit, some, keep)
        left = len(todo) - (turn + 1) * size * jax.process_count()
        pace.show(min(pictures.count, (units - max(left, 0)) * pace.unit))
        if pace.stop() and turn + 1 < turns:
            raise Preempted(
                f"stopped after batch {turn + 1} of {turns}, which is kept; run the "
                "same command again to go on."
            )
    barrier("features are there")
    return gathered(folder, units) if is_first() else None


def done(folder):
    """{number of a unit: the file that holds it}."""
    return {
        int(unit): path
        for path in sorted(Path(folder).glob("[0-9]*.npz"))
        for unit in read_part(path, ("units",))["units"]
    }


def gathered(folder, units):
    """The arrays of all units, in their order.

    Raises:
        Failed: a unit is not there.
    """
    holders = done(folder)
    missing = sorted(set(range(units)) - set(holders))
    if missing:
        raise Failed(
            f"{folder} lacks unit {missing[0]} of {units}: all processes must see the "
            "same folder; put --work on a file system that they share."
        )
    rows, parts = [], []
    for path in dict.fromkeys(holders.values()):
        part = read_part(path)
        rows.append(part.pop("numbers"))
        part.pop("units")
        parts.append(part)
    order = np.argsort(np.concatenate(rows))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: x[order] for name, x in joined.items()}


def read_part(path, names=None):
    """The arrays of one part; names: only these.

    Raises:
        BadInput: it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names or file.files}
    except GONE as error:
        raise BadInput(f"{path} is damaged ({error}); remove it to redo it.") from error


def _take(folder, pictures, extractors, unit, some, keep):
    """One batch of units: pictures, features, one file."""
    devices = jax.local_devices()[: math.ceil(pictures.count / unit)]
    numbers = np.concatenate([np.arange(k * unit, (k + 1) * unit) for k in some])
    numbers = numbers[numbers < pictures.count]
    images = pictures.fetch(numbers)
    for number, image in zip(numbers, images) if keep else ():
        keep(int(number), image)
    arrays = {"units": np.array(some), "numbers": numbers, "sha256": digests(images)}
    for name, extractor in extractors.items():
        found = extract(extractor.function, images, unit, devices)
        arrays |= {f"{name}.{key}": x for key, x in found.items()}
    path = folder / f"{some[0]:08d}.npz"
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez(file, **arrays)


def digests(images):
    """SHA-256 of each picture's shape and bytes: uint8 [n, 32]."""
    head = str(images.shape[1:]).encode()
    found = [hashlib.sha256(head + np.ascontiguousarray(x).tobytes()) for x in images]
    return np.stack([np.frombuffer(one.digest(), np.uint8) for one in found])


def total_digest(parts):
    """SHA-256 of all pictures from those of each [n, 32], in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(parts).tobytes()).hexdigest()
