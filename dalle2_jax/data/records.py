"""Tar shards as one long list of captioned pictures that can be read at any place."""

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dalle2_jax.data import stores
from dalle2_jax.data.selection import NEED, check_fields, rules_of
from dalle2_jax.data.shard_reader import ShardReader
from dalle2_jax.data.store_faults import shown
from dalle2_jax.data.tar_members import EMPTY, NO_TAR
from dalle2_jax.errors import BadInput

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
MOST_SHARDS = 1_000_000


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
    if stores.is_url(pattern):
        return stores.matches(pattern)
    wild = any(letter in pattern for letter in "*?[")
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
        Failed: a store does not answer.
    """
    patterns = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    named = [p for pattern in patterns for p in expand_braces(os.fspath(pattern))]
    shards = [shard for pattern in named for shard in _matches(pattern)]
    if not shards:
        said = ", ".join(map(shown, patterns))
        raise BadInput(
            f"No tar shard matches {said or 'an empty list'}; check the path."
        )
    return list(dict.fromkeys(shards))


class ShardSource(Sequence):
    """Random access to the samples of tar shards: len(source), source[i] -> Record.

    Everything is indexed up front; `LazyShards` is for shards too many for that.

    Attributes:
        shards: their paths. indices: their ShardIndex, of the samples that are used.
        problems: reason -> number of samples (or shards) that were left out.
        dropped: filter -> number of samples that it keeps out.

    Args:
        paths: as in `expand`.
        need: what a sample must have: "picture", "caption", other extensions.
        keep: filters on the numbers in its JSON ("width>=256"), all must hold.
        said: member or field of its JSON that is its caption; "": see `ShardReader`.

    Raises:
        BadInput: no shard, no usable sample, or a filter on a field that is nowhere.
    """

    def __init__(self, paths, need=NEED, keep=(), said=""):
        self.shards = expand(paths)
        self.reader = ShardReader(self.shards, tuple(need), tuple(keep), said)
        shards = range(len(self.shards))
        found = stores.in_parallel(self.reader.selected, shards)
        self.indices = [one.index for one in found]
        self.starts = np.cumsum([0, *(len(index.keys) for index in self.indices)])
        self.problems = _total(
            {reason: len(keys) for reason, keys in index.problems.items()}
            for index in self.indices
        )
        self.dropped = _total(one.dropped for one in found)
        check_fields(rules_of(keep), frozenset().union(*(one.fields for one in found)))
        if not len(self):
            raise BadInput(_nothing(self.shards, self.problems | self.dropped))

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "indices"}

    def __repr__(self):
        return f"ShardSource({len(self)} samples in {len(self.shards)} shards)"

    def __len__(self):
        return int(self.starts[-1])

    @property
    def total(self):
        """The number of samples."""
        return len(self)

    def size_of(self, shard):
        """Usable samples in a shard."""
        return int(self.starts[shard + 1] - self.starts[shard])

    def first_of(self, shard):
        """The number of a shard's first sample."""
        return int(self.starts[shard])

    def shard_of(self, i):
        """The shard that sample i lies in."""
        return self.locate(i)[0]

    def locate(self, i):
        """Number of the shard and of the sample in it."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        i %= len(self)
        shard = int(np.searchsorted(self.starts, i, side="right")) - 1
        return shard, i - int(self.starts[shard])

    def close(self):
        """Closes the open files; they are opened again when needed."""
        self.reader.close()

    def name(self, i):
        """Where sample i lies, for messages: 'SHARD: KEY'."""
        return self.reader.name(*self.locate(i))

    def __getitem__(self, i):
        return self.reader.record(*self.locate(i))

    def pair(self, i):
        """(image, caption) of a sample, which is less to read than its Record."""
        return self.reader.pair(*self.locate(i))

    def member(self, i, extension):
        """The bytes of another member of sample i ("npy"), or None."""
        return self.reader.member(*self.locate(i), extension)

    def caption(self, i):
        """The caption of sample i, without reading its picture."""
        return self.reader.caption(*self.locate(i))

    def captions(self):
        """Iterates over all captions, in order."""
        return (self.caption(i) for i in range(len(self)))


def _total(counts):
    """The sum of dicts of numbers, in order of appearance."""
    total = {}
    for count in counts:
        for name, number in count.items():
            total[name] = total.get(name, 0) + number
    return total


def _nothing(shards, reasons):
    """One sentence on why not a single sample can be used."""
    said = ", ".join(f"{reason}: {n}" for reason, n in reasons.items())
    first = shown(shards[0])
    if len(shards) == 1 and NO_TAR in reasons:
        return (
            f"{first} is no tar file; shards are uncompressed tars of KEY.jpg or "
            ".png, KEY.txt and KEY.json."
        )
    if len(shards) == 1 and EMPTY in reasons:
        return f"The shard {first} is empty; remove it or make it again."
    others = f" and {len(shards) - 1} others" if len(shards) > 1 else ""
    return f"No usable sample in {first}{others} ({said})."
