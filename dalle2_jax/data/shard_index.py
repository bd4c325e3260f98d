"""The index of a tar shard: where its samples lie and which ones are broken.

Built in one pass over the tar and kept beside it as NAME.idx, or in the cache folder
where the shard's folder cannot be written. It holds for one size and time of the file.
A remote shard's index is looked for beside it and kept in the cache folder;
`dalle2 data index` writes it beside the shard once, for all hosts.
"""

import hashlib
import json
import os
import secrets
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from dalle2_jax.data import stores
from dalle2_jax.data.stores import is_url
from dalle2_jax.data.tar_members import contents_of
from dalle2_jax.errors import BadInput

VERSION = 3
PICTURES = ("jpg", "jpeg", "png", "webp")
ABSENT = (-1, 0)
MOST_FIELDS = 64
WRITE = 0o222  # permission bits
STRINGS = ("keys", "names", "kinds")
ARRAYS = ("captioned", "fields", "others")
DAMAGED = (OSError, ValueError, KeyError, TypeError, SafetensorError)


class ShardIndex(NamedTuple):
    """The samples of one shard; a span is (offset, length) in the tar, or ABSENT."""

    keys: np.ndarray  # str [n]
    pictures: np.ndarray  # int64 [n, 2]
    texts: np.ndarray  # int64 [n, 2]; ABSENT where the text is blank
    metas: np.ndarray  # int64 [n, 2]
    captioned: np.ndarray  # bool [n]
    fields: np.ndarray  # float64 [n, names]: numbers in the JSON; NaN: not there
    names: np.ndarray  # str [f], lower-cased
    others: np.ndarray  # int64 [m, 4]: row, kind, offset, length; sorted
    kinds: np.ndarray  # str [k]: extensions of the other members
    problems: dict  # reason -> [key, ...] of what was left out, "" for the shard

    def member(self, row, extension):
        """The span of any member besides picture, text and JSON."""
        low, high = np.searchsorted(self.others[:, 0], (row, row + 1))
        for _, kind, *span in self.others[low:high].tolist():
            if self.kinds[kind] == extension:
                return tuple(span)
        return ABSENT

    def having(self, extension):
        """bool [n]: which samples have this other member."""
        kind = np.flatnonzero(self.kinds == extension)
        rows = self.others[np.isin(self.others[:, 1], kind), 0]
        return np.isin(np.arange(len(self.keys)), rows)

    def field(self, name):
        """float64 [n] of a number in the JSON; NaN where a sample lacks it."""
        at = np.flatnonzero(self.names == name)
        return self.fields[:, at[0]] if len(at) else np.full(len(self.keys), np.nan)

    def take(self, rows):
        """The index of some rows, ascending, without the fields."""
        place = np.full(len(self.keys), -1)
        place[rows] = np.arange(len(rows))
        others = self.others.copy()
        others[:, 0] = place[others[:, 0]]
        return self._replace(
            keys=self.keys[rows],
            pictures=self.pictures[rows],
            texts=self.texts[rows],
            metas=self.metas[rows],
            captioned=self.captioned[rows],
            fields=np.zeros((len(rows), 0)),
            names=self.names[:0],
            others=others[others[:, 0] >= 0],
        )


def index_of(path):
    """The index of a shard, from beside it, from the cache, or built now.

    Raises:
        BadInput: the file is not there or cannot be read.
        Failed: its store does not answer.
    """
    stamp = stamp_of(path)
    for place in (beside(path), cached(path)):
        found = _load(place, stamp)
        if found is not None:
            return found
    made = build_index(path)
    places = (cached(path),) if is_url(path) else (beside(path), cached(path))
    if len(made.keys):
        any(_save(place, stamp, made) for place in places)
    return made


def publish(path):
    """Writes the index of a shard beside it, remote or not; returns the index.

    Raises:
        BadInput: the shard cannot be read, or its folder not be written.
        Failed: its store does not answer.
    """
    index, stamp = index_of(path), stamp_of(path)
    if _load(beside(path), stamp) is not None:
        return index
    if is_url(path):
        stores.write(beside(path), _packed(stamp, index))
    else:
        try:
            Path(beside(path)).write_bytes(_packed(stamp, index))
        except OSError as error:
            raise BadInput(
                f"{beside(path)} cannot be written ({error}); mend the permissions."
            ) from error
    return index


def beside(path):
    """Where the index of a shard is kept: a Path, or a URL."""
    return stores.beside(path, ".idx") if is_url(path) else Path(f"{path}.idx")


def cached(path):
    """Where it is kept when the shard's own folder cannot be written."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    whole = str(path) if is_url(path) else os.path.abspath(path)
    digest = hashlib.sha256(whole.encode()).hexdigest()[:24]
    return Path(root) / "dalle2_jax" / f"{digest}.idx"


def stamp_of(path):
    """What a shard is recognised by: size and time of change."""
    if is_url(path):
        return f"{VERSION} {stores.stamp(path)}"
    try:
        state = os.stat(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"The shard {path} cannot be read ({error}).") from error
    return f"{VERSION} {state.st_size} {state.st_mtime_ns}"


def _load(place, stamp):
    """An index that was saved for this stamp, else None."""
    try:
        saved = load(_bytes_of(place))
        about = json.loads(saved.pop("about").tobytes())
        if about["stamp"] != stamp or about["check"] != _check(saved):
            return None
    except DAMAGED:
        return None
    pictures, texts, metas = np.moveaxis(saved["spans"], 1, 0)
    strings = {name: np.array(about[name], np.str_) for name in STRINGS}
    arrays = {name: saved[name] for name in ARRAYS}
    return ShardIndex(
        pictures=pictures,
        texts=texts,
        metas=metas,
        problems=about["problems"],
        **strings,
        **arrays,
    )


def _bytes_of(place):
    """The bytes of an index, wherever it is kept."""
    return stores.read_whole(place) if is_url(place) else Path(place).read_bytes()


def _check(arrays):
    """A sum over the bytes of arrays by name."""
    return zlib.crc32(b"".join(arrays[name].tobytes() for name in sorted(arrays)))


def _packed(stamp, index):
    """The bytes of an index file: safetensors, with a JSON text among the arrays."""
    spans = np.stack([index.pictures, index.texts, index.metas], axis=1)
    arrays = {name: getattr(index, name) for name in ARRAYS} | {"spans": spans}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    about = {name: getattr(index, name).tolist() for name in STRINGS}
    about |= {"stamp": stamp, "problems": index.problems, "check": _check(arrays)}
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    return save({**arrays, "about": text})


def _save(place, stamp, index):
    """Writes the index whole or not at all; False where the folder is read-only."""
    part = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.parent.stat().st_mode & WRITE:
            return False  # meant to stay as it is, even where root could write
        part.write_bytes(_packed(stamp, index))
        part.replace(place)
    except OSError:
        part.unlink(missing_ok=True)
        return False
    return True


def build_index(path):
    """Reads every header of a shard, its captions and JSON members. See `index_of`."""
    try:
        with stores.open_file(path) if is_url(path) else open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            return _arranged(contents_of(file, size))
    except OSError as error:
        if isinstance(error.__cause__, BadInput):  # of a store, which says it all
            raise error.__cause__ from error
        raise BadInput(f"The shard {path} cannot be read ({error}).") from error


def _arranged(contents):
    """Contents as arrays."""
    samples = contents.samples
    seen = Counter(name for s in samples.values() for name in s.fields)
    names = [name for name, _ in seen.most_common(MOST_FIELDS)]
    rows = [_spans(sample) for sample in samples.values()]
    spans = np.array(rows, np.int64).reshape(-1, 3, 2)
    kinds = sorted({e for s in samples.values() for e in _others(s)})
    number = {kind: i for i, kind in enumerate(kinds)}
    others = [
        (row, number[extension], *sample.spans[extension])
        for row, sample in enumerate(samples.values())
        for extension in _others(sample)
    ]
    fields = [[s.fields.get(n, np.nan) for n in names] for s in samples.values()]
    return ShardIndex(
        np.array(list(samples), np.str_),
        *np.moveaxis(spans, 1, 0),
        np.array([bool(s.said) for s in samples.values()], bool),
        np.array(fields, np.float64).reshape(len(samples), len(names)),
        np.array(names, np.str_),
        np.array(others, np.int64).reshape(-1, 4),
        np.array(kinds, np.str_),
        contents.problems,
    )


def _picture(sample):
    return next((e for e in PICTURES if sample.spans.get(e, ABSENT)[1]), None)


def _spans(sample):
    """picture, text and meta spans."""
    text = sample.spans["txt"] if "txt" in sample.said else ABSENT
    picture = sample.spans.get(_picture(sample), ABSENT)
    return picture, text, sample.spans.get("json", ABSENT)


def _others(sample):
    return [e for e in sample.spans if e not in (_picture(sample), "txt", "json")]
