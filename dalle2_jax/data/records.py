"""Tar shards as one long list of captioned pictures that can be read at any place."""

import glob
import json
import os
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import fsspec
import numpy as np

from dalle2_jax.data.shard_index import index_of, is_url
from dalle2_jax.errors import BadInput

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
MOST_SHARDS = 1_000_000


class Record(NamedTuple):
    """One sample as it lies in its shard; image is the encoded file."""

    key: str
    image: bytes
    caption: str
    meta: dict
    shard: str


def expand_braces(pattern):
    """'a{00..02}{x,y}' -> ['a00x', 'a00y', 'a01x', ...]; without braces, itself."""
    found = BRACES.search(pattern)
    if not found:
        return [pattern]
    span = RANGE.fullmatch(found[1])
    if span:
        low, high = int(span[1]), int(span[2])
        if not 0 <= high - low < MOST_SHARDS:
            raise BadInput(f"{{{found[1]}}} in {pattern} is no usable range.")
        choices = [f"{i:0{len(span[1])}d}" for i in range(low, high + 1)]
    else:
        choices = found[1].split(",")
    head, tail = pattern[: found.start()], pattern[found.end() :]
    return [head + c + rest for c in choices for rest in expand_braces(tail)]


def _matches(pattern):
    """The shards that one pattern without braces names, sorted."""
    wild = any(letter in pattern for letter in "*?[")
    if is_url(pattern):
        if not wild:
            return [pattern]
        fs, path = fsspec.core.url_to_fs(pattern)
        return sorted(fs.unstrip_protocol(p) for p in fs.glob(path))
    pattern = os.path.expanduser(pattern)
    if os.path.isdir(pattern):
        return sorted(str(p) for p in Path(pattern).glob("*.tar"))
    if wild:
        return sorted(glob.glob(pattern, recursive=True))
    if not os.path.exists(pattern):
        raise BadInput(f"There is no shard {pattern}; check the data pattern.")
    return [pattern]


def expand(paths):
    """Shard paths from a pattern or a list of patterns.

    A pattern is a tar file, a folder of them, a glob, or has braces
    ('shards/{00000..00099}.tar'); 'gs://' and other URLs go through fsspec.

    Raises:
        BadInput: a named shard is not there, or nothing matches.
    """
    patterns = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    named = [p for pattern in patterns for p in expand_braces(os.fspath(pattern))]
    shards = [shard for pattern in named for shard in _matches(pattern)]
    if not shards:
        said = ", ".join(map(str, patterns))
        raise BadInput(
            f"No tar shard matches {said or 'an empty list'}; check the path."
        )
    return list(dict.fromkeys(shards))


class ShardSource(Sequence):
    """Random access to the samples of tar shards: len(source), source[i] -> Record.

    Files are opened on first use in each process and read with os.pread, so threads may
    share a source and a pickled one works elsewhere. problems: reason -> number of
    samples that were left out; shards: their paths.

    Raises:
        BadInput: no shard, an empty one, a file that is no tar, or no usable sample.
    """

    def __init__(self, paths):
        self.shards = expand(paths)
        with ThreadPoolExecutor(8) as pool:
            self.indices = list(pool.map(index_of, self.shards))
        self.starts = np.cumsum([0, *(len(index.keys) for index in self.indices)])
        self.problems = self._count_problems()
        self._open()
        if not len(self):
            reasons = ", ".join(f"{r}: {n}" for r, n in self.problems.items())
            raise BadInput(
                f"No usable sample in {self.shards[0]} and others ({reasons})."
            )

    def _count_problems(self):
        counts = {}
        for index in self.indices:
            for reason, keys in index.problems.items():
                counts[reason] = counts.get(reason, 0) + len(keys)
        return counts

    def _open(self):
        self._files, self._lock = {}, threading.Lock()

    def __getstate__(self):
        hidden = ("_files", "_lock")
        return {k: v for k, v in self.__dict__.items() if k not in hidden}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._open()

    def __repr__(self):
        return f"ShardSource({len(self)} samples in {len(self.shards)} shards)"

    def __len__(self):
        return int(self.starts[-1])

    def _locate(self, i):
        """Number of the shard and of the sample in it."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        i %= len(self)
        shard = int(np.searchsorted(self.starts, i, side="right")) - 1
        return shard, i - int(self.starts[shard])

    def _file(self, shard):
        """An open descriptor of a local shard, or (file system, path) of a URL."""
        with self._lock:
            owner = (os.getpid(), shard)
            if owner not in self._files:
                path = self.shards[shard]
                self._files[owner] = (
                    fsspec.core.url_to_fs(path)
                    if is_url(path)
                    else os.open(path, os.O_RDONLY)
                )
            return self._files[owner]

    def _read(self, shard, span):
        offset, length = map(int, span)
        if not length:
            return b""
        file = self._file(shard)
        if isinstance(file, int):
            return os.pread(file, length, offset)
        fs, path = file
        return fs.cat_file(path, start=offset, end=offset + length)

    def close(self):
        """Closes the open files; they are opened again when needed."""
        with self._lock:
            for (owner, _), file in self._files.items():
                if isinstance(file, int) and owner == os.getpid():
                    os.close(file)
            self._files.clear()

    def __del__(self):
        if hasattr(self, "_lock"):
            self.close()

    def name(self, i):
        """Where sample i lies, for messages: 'SHARD: KEY'."""
        shard, row = self._locate(i)
        return f"{self.shards[shard]}: {self.indices[shard].keys[row]}"

    def _meta(self, shard, row):
        data = self._read(shard, self.indices[shard].metas[row])
        return json.loads(data) if data else {}

    def _text(self, shard, row):
        text = self._read(shard, self.indices[shard].texts[row])
        return text.decode("utf-8", errors="replace").strip()

    def __getitem__(self, i):
        shard, row = self._locate(i)
        index, meta = self.indices[shard], self._meta(shard, row)
        caption = self._text(shard, row) or str(meta.get("caption", "")).strip()
        image = self._read(shard, index.pictures[row])
        return Record(str(index.keys[row]), image, caption, meta, self.shards[shard])

    def caption(self, i):
        """The caption of sample i, without reading its picture."""
        shard, row = self._locate(i)
        said = self._text(shard, row)
        return said or str(self._meta(shard, row).get("caption", "")).strip()

    def captions(self):
        """Iterates over all captions, in order."""
        return (self.caption(i) for i in range(len(self)))
