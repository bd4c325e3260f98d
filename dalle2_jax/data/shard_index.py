"""The index of a tar shard: where its samples lie and which ones are broken.

Built in one pass over the tar and kept beside it as NAME.idx, or in the cache folder
where the shard's folder cannot be written. It holds for one size and time of the file.
"""

import hashlib
import json
import os
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import fsspec
import numpy as np

from dalle2_jax.errors import BadInput

VERSION = 2
PICTURES = ("jpg", "jpeg", "png", "webp")
EARLY = "the shard ends early"
ABSENT = -1
BLOCK = 512
WRITE = 0o222  # permission bits
DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class ShardIndex(NamedTuple):
    """Samples of one shard; a span is (offset, length) in the tar, or (ABSENT, 0)."""

    keys: np.ndarray  # str [n]
    pictures: np.ndarray  # int64 [n, 2]
    texts: np.ndarray  # int64 [n, 2]; of length 0 where the caption stands in the JSON
    metas: np.ndarray  # int64 [n, 2]
    problems: dict  # reason -> [key, ...] of the samples left out


def is_url(path):
    """Whether fsspec and not the file system reads this path."""
    return "://" in str(path)


def index_of(path):
    """The index of a shard, from beside it, from the cache, or built now.

    Raises:
        BadInput: the file is not there, is no tar, or is empty.
    """
    stamp = _stamp(path)
    for place in (beside(path), cached(path)):
        found = _load(place, stamp) if place else None
        if found is not None:
            return found
    made = build_index(path)
    for place in (beside(path), cached(path)):
        if place and _save(place, stamp, made):
            break
    return made


def beside(path):
    """Where the index of a local shard is kept; None for a URL."""
    return None if is_url(path) else Path(f"{path}.idx")


def cached(path):
    """Where it is kept when the shard's own folder cannot be written."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    whole = str(path) if is_url(path) else os.path.abspath(path)
    digest = hashlib.sha256(whole.encode()).hexdigest()[:24]
    return Path(root) / "dalle2_jax" / f"{digest}.idx"


def _stamp(path):
    """What a shard is recognised by: size and time of change."""
    try:
        if not is_url(path):
            state = os.stat(path)
            return f"{VERSION} {state.st_size} {state.st_mtime_ns}"
        about = fsspec.core.url_to_fs(path)
        info = about[0].info(about[1])
    except (OSError, ValueError, ImportError) as error:
        raise BadInput(f"The shard {path} cannot be read ({error}).") from error
    marks = [
        info.get(k) for k in ("size", "mtime", "ETag", "etag", "updated", "created")
    ]
    return f"{VERSION} {marks}"


def _load(place, stamp):
    """An index that was saved for this stamp, else None."""
    try:
        with np.load(place, allow_pickle=False) as saved:
            if str(saved["stamp"]) != stamp:
                return None
            arrays = (saved[n] for n in ("keys", "pictures", "texts", "metas"))
            return ShardIndex(*arrays, json.loads(str(saved["problems"])))
    except DAMAGED:
        return None


def _save(place, stamp, index):
    """Writes the index whole or not at all; False where the folder is read-only."""
    part = place.with_name(f".{place.name}.{os.getpid()}")
    arrays = index._asdict() | {"problems": json.dumps(index.problems)}
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.parent.stat().st_mode & WRITE:
            return False  # meant to stay as it is, even where root could write
        with part.open("wb") as out:
            np.savez(out, stamp=stamp, **arrays)
        part.replace(place)
    except OSError:
        part.unlink(missing_ok=True)
        return False
    return True


def build_index(path):
    """Reads every header of a shard, and its JSON members. See `index_of`."""
    with fsspec.open(str(path), "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        try:
            samples, cut = _members(file, size)
        except tarfile.TarError as error:
            raise BadInput(
                f"{path} is no tar file ({error}); shards are uncompressed tars of "
                "KEY.jpg or .png, KEY.txt and KEY.json."
            ) from error
        if not samples:
            raise BadInput(f"The shard {path} is empty; remove it or make it again.")
        return _sorted_out(file, samples, cut)


def _split(name):
    """KEY and extension: webdataset parts the base name at its first dot."""
    folder, _, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{folder}/{stem}" if folder else stem, extension.lower()


def _headers(tar, cut):
    """The members of a tar; notes in `cut` where it breaks off before its end."""
    while True:
        try:
            member = tar.next()
        except tarfile.ReadError:
            cut.append(EARLY)
            return
        if member is None:
            break
        tar.members.clear()  # a million headers are not needed in memory
        yield member
    tar.fileobj.seek(tar.offset)
    if any(tar.fileobj.read(BLOCK)):  # a broken header, where the end mark should be
        cut.append(EARLY)


def _members(file, size):
    """{key: {extension: (offset, length)}} of whole members; keys that were cut off."""
    samples, cut = {}, []
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in _headers(tar, cut):
            key, extension = _split(member.name)
            if not member.isreg() or key.startswith("__") or not extension:
                continue
            sample = samples.setdefault(key, {})
            if member.offset_data + member.size > size:
                cut.append(key)
            elif extension not in sample:
                sample[extension] = (member.offset_data, member.size)
    return samples, cut


def _sorted_out(file, samples, cut):
    """The usable samples as arrays, and the others by reason."""
    rows, problems = [], {}
    for key, spans in samples.items():
        row, reason = _row(file, key, spans)
        if reason:
            problems.setdefault("cut off" if key in cut else reason, []).append(key)
        else:
            rows.append((key, *row))
    if EARLY in cut:
        problems[EARLY] = [""]
    keys = np.array([row[0] for row in rows], dtype=np.str_)
    spans = np.array([row[1:] for row in rows], np.int64).reshape(-1, 3, 2)
    return ShardIndex(keys, *np.moveaxis(spans, 1, 0), problems)


def _read_span(file, span):
    file.seek(span[0])
    return file.read(span[1])


def _row(file, key, spans):
    """(picture, text, meta spans) of a sample, or the reason why it is left out."""
    absent = (ABSENT, 0)
    picture = next((spans[e] for e in PICTURES if e in spans), absent)
    text, meta = spans.get("txt", absent), spans.get("json", absent)
    if not picture[1]:
        return None, "no picture"
    fields = {}
    if meta[1]:
        try:
            fields = json.loads(_read_span(file, meta))
        except ValueError:
            return None, "broken JSON"
        if not isinstance(fields, dict):
            return None, "broken JSON"
    if text[1] and not _read_span(file, text).strip():
        text = absent
    said = fields.get("caption")
    if not text[1] and not (isinstance(said, str) and said.strip()):
        return None, "no caption"
    return (picture, text, meta), None
