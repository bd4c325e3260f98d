"""Tar shards too many to index up front: each is indexed when its turn comes."""

from concurrent.futures import ThreadPoolExecutor

from dalle2_jax.data.identity import Shard, identity_of, local_sizes
from dalle2_jax.data.selection import NEED, check_fields, rules_of
from dalle2_jax.data.shard_paths import expand
from dalle2_jax.data.shard_reader import ShardReader
from dalle2_jax.data.stores import THREADS

SHIFT = 32  # a record is its shard's number and its row in it
ROWS = (1 << SHIFT) - 1
HELD = 256  # indices in memory
FIRST = 16  # shards that stand for all, where somebody wants to see captions


class LazyShards:
    """The samples of tar shards by record numbers; none is counted before it is read.

    Args:
        paths, need, keep, said: as in `records.ShardSource`.

    Raises:
        BadInput: no shard; later, one that cannot be read.
    """

    def __init__(self, paths, need=NEED, keep=(), said=""):
        self.shards = expand(paths)
        self.reader = ShardReader(self.shards, tuple(need), tuple(keep), said, HELD)
        self._rules, self._ahead = rules_of(keep), None

    def __getstate__(self):
        return {**self.__dict__, "_ahead": None}

    def __repr__(self):
        return f"LazyShards({len(self.shards)} shards)"

    def identity(self) -> list[Shard]:
        """The shards, by which the data are recognised; none is opened for it."""
        unknown = [None] * len(self.shards)
        return identity_of(self.shards, local_sizes(self.shards), unknown)

    def size_of(self, shard):
        """Usable samples in a shard."""
        return len(self.reader.index(shard).keys)

    def first_of(self, shard):
        """The record number of a shard's first sample."""
        return shard << SHIFT

    def shard_of(self, record):
        """The shard that a record number lies in."""
        return record >> SHIFT

    def locate(self, record):
        """Number of the shard and of the sample in it."""
        return record >> SHIFT, record & ROWS

    def open(self, shards, following=()):
        """Indexes some shards now, THREADS at a time, and begins with the next ones.

        Raises:
            BadInput: a filter on a field that none of the shards has.
            Failed: a store does not answer.
        """
        if self._ahead is None:
            self._ahead = ThreadPoolExecutor(THREADS, thread_name_prefix="index")
        found = list(self._ahead.map(self.reader.selected, shards))
        if any(len(one.index.keys) or one.dropped for one in found):
            check_fields(self._rules, frozenset().union(*(f.fields for f in found)))
        for shard in following:
            self._ahead.submit(self.reader.selected, shard)

    def name(self, record):
        """Where a sample lies, for messages: 'SHARD: KEY'."""
        return self.reader.name(*self.locate(record))

    def __getitem__(self, record):
        return self.reader.record(*self.locate(record))

    def pair(self, record):
        """(image, caption) of a sample, which is less to read than its Record."""
        return self.reader.pair(*self.locate(record))

    def member(self, record, extension):
        """The bytes of another member of a sample ("npy"), or None."""
        return self.reader.member(*self.locate(record), extension)

    def caption(self, record):
        """The caption of a sample, without reading its picture."""
        return self.reader.caption(*self.locate(record))

    def captions(self):
        """Iterates over the captions of the first shards."""
        for shard in range(min(FIRST, len(self.shards))):
            for row in range(self.size_of(shard)):
                yield self.reader.caption(shard, row)

    def close(self):
        """Closes the open files; they are opened again when needed."""
        if self._ahead is not None:
            self._ahead.shutdown(wait=False, cancel_futures=True)
            self._ahead = None
        self.reader.close()
