"""Shards as one long list of captioned pictures that can be read at any place."""

from collections.abc import Sequence

import numpy as np

from dalle2_jax.data import stores
from dalle2_jax.data.identity import Shard, extent, identity_of, local_sizes
from dalle2_jax.data.sample_members import EMPTY, NO_PICTURE, NO_TAR, REMEDIES
from dalle2_jax.data.selection import NEED, check_fields, rules_of
from dalle2_jax.data.shard_paths import expand
from dalle2_jax.data.shard_reader import ShardReader
from dalle2_jax.data.store_faults import shown
from dalle2_jax.errors import BadInput

MOST_KINDS = 8  # extensions that a message names


class ShardSource(Sequence):
    """Random access to the samples of tar shards: len(source), source[i] -> Record.

    Everything is indexed up front; `LazyShards` is for shards too many for that.

    Attributes:
        shards: their paths. indices: their ShardIndex, of the samples that are used.
        problems: reason -> number of samples (or shards) that were left out.
        notes: reason -> number of samples that are used all the same.
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
        self.notes = _total(
            {reason: len(keys) for reason, keys in index.notes.items()}
            for index in self.indices
        )
        self.dropped = _total(one.dropped for one in found)
        check_fields(rules_of(keep), frozenset().union(*(one.fields for one in found)))
        if not len(self):
            raise BadInput(_nothing(self, self.problems | self.dropped))

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

    def identity(self) -> list[Shard]:
        """The shards, by which the data are recognised; of URLs the part in use."""
        used = map(extent, self.indices)
        sizes = [u if s is None else s for s, u in zip(local_sizes(self.shards), used)]
        samples = [len(index.keys) for index in self.indices]
        return identity_of(self.shards, sizes, samples)

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


def _nothing(source, reasons):
    """One sentence on why not a single sample can be used."""
    shards = source.shards
    said = ", ".join(f"{reason}: {n}" for reason, n in reasons.items())
    first = shown(shards[0])
    if len(shards) == 1 and NO_TAR in reasons:
        return (
            f"{first} is no tar file; shards are uncompressed tars of KEY.jpg or "
            ".png, KEY.txt and KEY.json, or folders of such files."
        )
    if len(shards) == 1 and EMPTY in reasons:
        return f"The shard {first} is empty; remove it or make it again."
    others = f" and {len(shards) - 1} others" if len(shards) > 1 else ""
    if NO_PICTURE in reasons:
        kinds = sorted({k for index in source.indices for k in index.kinds.tolist()})
        there = [f".{kind}" for kind in kinds[:MOST_KINDS]]
        said += f"; other members: {', '.join(there) or 'none'}"
    remedies = [REMEDIES[reason] for reason in reasons if reason in REMEDIES]
    todo = f": {'; '.join(remedies)}" if remedies else ""
    return f"No usable sample in {first}{others} ({said}){todo}."
