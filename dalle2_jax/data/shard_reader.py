"""Reads single samples of tar shards, local or remote, by shard and row.

Files and indices are opened on first use in each process, so threads may share a
reader and a pickled one, which carries nothing but names, works elsewhere.
"""

import os
import threading
from collections import OrderedDict
from typing import NamedTuple

from dalle2_jax.data import stores
from dalle2_jax.data.picture_folder import FolderReader, changed, listing_of
from dalle2_jax.data.sample_members import parsed
from dalle2_jax.data.selection import NEED, rules_of, select
from dalle2_jax.data.shard_index import ABSENT, VERSION, index_of
from dalle2_jax.data.store_faults import shown
from dalle2_jax.data.text import decode, is_blank, trimmed, valid
from dalle2_jax.errors import BadInput, Failed

MOST_FILES = 256  # open at once


class Record(NamedTuple):
    """One sample as it lies in its shard; image is the encoded file."""

    key: str
    image: bytes
    caption: str
    meta: dict
    shard: str


def field_of(meta: dict, path: str) -> str:
    """What a dotted path leads to as text; "" where that is blank, or no text and no
    number."""
    found = meta
    for name in path.split("."):
        if isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        else:
            found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, str | int | float):
        return ""
    text = trimmed(valid(str(found)))
    return "" if is_blank(text) else text


class _Local:
    """A descriptor that is closed when nobody reads from it any more."""

    def __init__(self, path):
        self.number = os.open(path, os.O_RDONLY)

    def read(self, offset, length):
        return os.pread(self.number, length, offset)

    def __del__(self):
        if hasattr(self, "number"):
            os.close(self.number)


def _remote(url, offset, length):
    """Bytes of a shard that was indexed before; refused now, they are no bad input."""
    try:
        return stores.read(url, offset, length)
    except BadInput as error:
        raise Failed(str(error)) from error


class _Held:
    """The newest few of what `make(key)` gives, by key, for many threads."""

    def __init__(self, make, most):
        self.make, self.most = make, most
        self.things, self.lock = OrderedDict(), threading.Lock()

    def __call__(self, key):
        with self.lock:
            if key in self.things:
                self.things.move_to_end(key)
                return self.things[key]
        made = self.make(key)
        with self.lock:
            self.things[key] = made
            while self.most and len(self.things) > self.most:
                self.things.popitem(last=False)
        return made


class ShardReader:
    """The samples of tar shards by (shard, row), after selection.

    Args:
        shards: paths or URLs.
        need: what a sample must have: "picture", "caption", other extensions.
        keep: filters on the numbers in its JSON, as in `selection.rules_of`.
        said: member or field of its JSON that is its caption; "": see `caption`.
        most: indices held at once, 0: all.
    """

    def __init__(self, shards, need=NEED, keep=(), said="", most=0):
        self.shards, self.need, self.keep = shards, need, keep
        self.said, self.most = said, most
        self._open()

    def _open(self):
        self._rules, self._process = rules_of(self.keep), os.getpid()
        self.selected = _Held(self._select, self.most)
        self._files = _Held(self._file, MOST_FILES)

    def _select(self, shard):
        return select(index_of(self.shards[shard]), self.need, self._rules)

    def _file(self, shard):
        path = self.shards[shard]
        return self._folder(shard, path) if os.path.isdir(path) else _Local(path)

    def _folder(self, shard, path):
        """The reader of a folder, whose spans hold for one listing of its files."""
        listing = listing_of(path)
        if self.index(shard).stamp != f"{VERSION} {listing.stamp}":
            raise changed(path)
        return FolderReader(path, listing)

    def __getstate__(self):
        names = ("shards", "need", "keep", "said", "most")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state):
        self.__init__(**state)

    def close(self):
        """Closes the open files; they are opened again when needed."""
        self._files = _Held(self._file, MOST_FILES)

    def index(self, shard):
        """ShardIndex of the samples of a shard that are used."""
        return self.selected(shard).index

    def _read(self, shard, span):
        offset, length = map(int, span)
        if not length:
            return b""
        if stores.is_url(self.shards[shard]):
            return _remote(self.shards[shard], offset, length)
        return self._files(shard).read(offset, length)

    def member(self, shard, row, extension):
        """The bytes of any other member of a sample, or None where it has none."""
        span = self.index(shard).member(row, extension)
        return None if span == ABSENT else self._read(shard, span)

    def name(self, shard, row):
        """Where a sample lies, for messages: 'SHARD: KEY'."""
        return f"{shown(self.shards[shard])}: {self.index(shard).keys[row]}"

    def _meta(self, shard, row):
        data = self._read(shard, self.index(shard).metas[row])
        return (parsed(data) or {}) if data else {}

    def caption(self, shard, row, meta=None):
        """The caption of a sample: its text, or else "caption" in its JSON.

        With `said` it is that member's text, or else that field: "label", or dotted,
        "things.0.shape".
        """
        if self.said:
            text = self.member(shard, row, self.said)
        else:
            text = self._read(shard, self.index(shard).texts[row])
        text = trimmed(decode(text or b"").text)
        if not is_blank(text):
            return text
        meta = self._meta(shard, row) if meta is None else meta
        return field_of(meta, self.said or "caption")

    def pair(self, shard, row):
        """(image, caption) of a sample; its JSON is read only for the caption."""
        image = self._read(shard, self.index(shard).pictures[row])
        return image, self.caption(shard, row)

    def record(self, shard, row):
        """The Record of a sample; the image is empty where it has none."""
        index, meta = self.index(shard), self._meta(shard, row)
        caption = self.caption(shard, row, meta)
        image = self._read(shard, index.pictures[row])
        return Record(str(index.keys[row]), image, caption, meta, self.shards[shard])
