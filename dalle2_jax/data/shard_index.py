"""The index of a tar shard: where its samples lie and which ones are broken.

Built in one pass over the tar and kept beside it as NAME.dalle2.idx, or in the cache
folder where the shard's folder cannot be written or holds something else of that name.
It holds for one size and time of the file. The index of a remote shard, or of a folder
of pictures, is looked for beside it and kept in the cache folder; `dalle2 data index`
writes it beside the shard once, for all hosts.
"""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from dalle2_jax.data import index_files, stores
from dalle2_jax.data.picture_folder import contents_of_folder, folder_stamp
from dalle2_jax.data.sample_members import MOST_OTHER, PICTURES
from dalle2_jax.data.stores import is_url
from dalle2_jax.data.tar_members import contents_of
from dalle2_jax.errors import BadInput

VERSION = 4
ABSENT = (-1, 0)
MOST_FIELDS = 64
ENDING = ".dalle2.idx"  # NAME.idx is taken by other programs
STRINGS = ("keys", "names", "kinds")
ARRAYS = ("captioned", "fields", "others")
DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError)


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
    notes: dict  # the same of what is used all the same
    stamp: str = ""  # what the shard was recognised by; see `stamp_of`

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


def index_of(path: str | Path) -> ShardIndex:
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
    made = build_index(path)._replace(stamp=stamp)
    if len(made.keys):
        whole = _packed(stamp, made)
        any(index_files.save(place, whole) for place in _own_places(path))
    return made


def _own_places(path):
    """Where an index is kept unasked, the best place first."""
    if is_url(path) or os.path.isdir(path):
        return (cached(path),)
    return beside(path), cached(path)


def publish(path: str | Path) -> ShardIndex:
    """Writes the index of a shard beside it, remote or not; returns the index.

    Raises:
        BadInput: the shard cannot be read, its folder not be written, or something
            else lies at the place of the index.
        Failed: its store does not answer.
    """
    index, stamp, place = index_of(path), stamp_of(path), beside(path)
    if _load(place, stamp) is not None:
        return index
    try:
        if _is_taken(place):
            raise BadInput(
                f"{place} is no index of dalle2_jax and is left alone; move it away."
            )
        whole = index_files.packed(_packed(stamp, index))
        if is_url(place):
            stores.write(place, whole)
        else:
            place.write_bytes(whole)
    except OSError as error:
        raise BadInput(
            f"{place} cannot be written ({error}); mend the permissions."
        ) from error
    return index


def _is_taken(place):
    """Whether something that is no index of ours lies at a Path or URL."""
    if isinstance(place, Path):
        return index_files.is_taken(place)
    try:
        return not index_files.is_ours(stores.read_whole(place))
    except BadInput as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return False
        raise


def beside(path: str | Path) -> str | Path:
    """Where the index of a shard is kept: a Path, or a URL."""
    if is_url(path):
        return stores.beside(path, ENDING)
    return Path(path, ENDING) if os.path.isdir(path) else Path(f"{path}{ENDING}")


def cached(path: str | Path) -> Path:
    """Where it is kept when the shard's own folder cannot be written."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    whole = str(path) if is_url(path) else os.path.abspath(path)
    digest = hashlib.sha256(os.fsencode(whole)).hexdigest()[:24]
    return Path(root) / "dalle2_jax" / f"{digest}.idx"


def stamp_of(path: str | Path) -> str:
    """What a shard is recognised by: size and time of change."""
    if is_url(path):
        return f"{VERSION} {stores.stamp(path)}"
    try:
        if os.path.isdir(path):
            return f"{VERSION} {folder_stamp(path)}"
        state = os.stat(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"The shard {path} cannot be read ({error}).") from error
    return f"{VERSION} {state.st_size} {state.st_mtime_ns}"


def _load(place, stamp):
    """An index that was saved for this stamp, else None."""
    try:
        whole = index_files.unpacked(memoryview(_bytes_of(place)))
        if whole is None:
            return None
        saved = load(bytes(whole))
        about = json.loads(saved.pop("about").tobytes())
        if about["stamp"] != stamp:
            return None
        return _unpacked(saved, about)
    except DAMAGED:
        return None


def _unpacked(saved, about):
    """The ShardIndex in an index file. Raises ValueError where its parts do not fit."""
    pictures, texts, metas = np.moveaxis(saved["spans"], 1, 0)
    found = ShardIndex(
        pictures=pictures,
        texts=texts,
        metas=metas,
        problems=about["problems"],
        notes=about["notes"],
        stamp=about["stamp"],
        **{name: np.array(about[name], np.str_) for name in STRINGS},
        **{name: saved[name] for name in ARRAYS},
    )
    _check(found, saved["spans"])
    return found


def _bytes_of(place):
    """The bytes of an index, wherever it is kept."""
    return stores.read_whole(place) if is_url(place) else Path(place).read_bytes()


def _check(found, spans):
    """Refuses an index whose parts do not fit together. Raises ValueError."""
    n, others = len(found.keys), found.others
    shapes = {
        "keys": (n,),
        "pictures": (n, 2),
        "captioned": (n,),
        "fields": (n, len(found.names)),
        "names": (len(found.names),),
        "others": (len(others), 4),
        "kinds": (len(found.kinds),),
    }
    wrong = [n for n, shape in shapes.items() if getattr(found, n).shape != shape]
    kinds = (spans, others, found.captioned, found.fields)
    if wrong or "".join(array.dtype.kind for array in kinds) != "iibf":
        raise ValueError(f"arrays of another shape or kind ({wrong})")
    places = np.concatenate([spans.reshape(-1, 2), others[:, 2:]])
    tops = (2**62, MOST_OTHER + 1)
    rows, tops_of = others[:, :2], (n, len(found.kinds))
    if not _within(places, (-1, 0), tops) or not _within(rows, (0, 0), tops_of):
        raise ValueError("a member that lies nowhere, or is of no sample or kind")
    listed = [
        keys for reasons in (found.problems, found.notes) for keys in reasons.values()
    ]
    if not all(isinstance(key, str) for keys in listed for key in keys):
        raise ValueError("a problem without a key")


def _within(pairs, low, top):
    """Whether int [m, 2] lie from `low` to below `top`, which has a bound for each."""
    return bool(((pairs >= low) & (pairs < top)).all())


def _packed(stamp, index):
    """The bytes of an index: safetensors, with a JSON text among the arrays."""
    spans = np.stack([index.pictures, index.texts, index.metas], axis=1)
    arrays = {name: getattr(index, name) for name in ARRAYS} | {"spans": spans}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    about = {name: getattr(index, name).tolist() for name in STRINGS}
    about |= {"stamp": stamp, "problems": index.problems, "notes": index.notes}
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    return save({**arrays, "about": text})


def build_index(path: str | Path) -> ShardIndex:
    """Reads every header of a shard, its captions and JSON members. See `index_of`."""
    try:
        if os.path.isdir(path):
            return _arranged(contents_of_folder(path))
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
        contents.notes,
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
