"""The order of samples: a pure function of (seed, the samples, group).

A global sample number counts samples since the start of training over all epochs. An
order gives the records of any rows of the batch that begins at a cursor; `cursor` and
`position` translate between a cursor and what a checkpoint keeps.
"""

import threading
from collections import OrderedDict
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from grain.experimental import index_shuffle

from dalle2_jax.errors import BadInput

BLOCKS = 8  # whose layout is remembered


@lru_cache(maxsize=64)
def _epoch_seed(seed, epoch):
    """A 32-bit seed of its own for each epoch."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


@lru_cache(maxsize=16)
def permutation(n, *numbers):
    """int64 [n]: 0..n-1 in an order that is a function of the numbers.

    By sorting raw random bits, whose stream NumPy promises to keep.
    """
    bits = np.random.Philox(np.random.SeedSequence(numbers)).random_raw(n)
    return np.argsort(bits, kind="stable")


def record_at(number, n, seed, group=1):
    """The record, in 0..n-1, that is global sample `number`.

    Each epoch shows every record once. Groups of `group` consecutive records stay
    together and are permuted anew in each epoch; the n % group left over come last.
    """
    epoch, place = divmod(number, n)
    groups = n // group
    if place >= groups * group:
        return place
    block, offset = divmod(place, group)
    if groups > 1:
        seed = _epoch_seed(seed, epoch)
        block = index_shuffle(block, max_index=groups - 1, seed=seed, rounds=4)
    return block * group + offset


class GlobalOrder(NamedTuple):
    """Every epoch permutes all records at once. A cursor is a global sample number."""

    n: int
    seed: int
    group: int = 1

    def cursor(self, position):
        """position: an int, or what a BlockOrder saved."""
        return position["number"] if isinstance(position, dict) else position

    def position(self, cursor):
        """What a checkpoint keeps of a cursor."""
        return cursor

    def skip(self, cursor, count):
        """The cursor `count` samples on."""
        return cursor + count

    def records(self, cursor, rows):
        """Record numbers of some rows (ascending) of the batch that begins there."""
        return [record_at(cursor + row, self.n, self.seed, self.group) for row in rows]

    def after(self, record):
        """The next record in its shard, or of the next shard."""
        return (record + 1) % self.n


class Cursor(NamedTuple):
    """Global sample `number`: sample `offset` of a block of shards of an epoch."""

    number: int
    epoch: int
    block: int
    offset: int


class _Block(NamedTuple):
    """shards: their numbers; starts: of each in the block, and the end.

    order: groups of neighbours as they come; those left over come last.
    """

    shards: list
    starts: np.ndarray
    order: np.ndarray


class BlockOrder:
    """Every epoch permutes the shards, then the samples within blocks of whole shards.

    So only the shards of one block are read at a time, and a shard's size needs to be
    known only when its block comes up.

    Args:
        source: has shards, size_of(shard), first_of(shard), shard_of(record).
        seed: of the order.
        per_block: shards in a block.
        group: consecutive records of a block that stay together.
        opened: called with the shards of a block and of the next one when it comes up.
    """

    def __init__(self, source, seed, per_block, group=1, opened=None):
        self.source, self.seed, self.group = source, seed, group
        self.per_block, self.opened = per_block, opened
        self.count = -(-len(source.shards) // per_block)
        self._blocks, self._lock = OrderedDict(), threading.Lock()

    def __repr__(self):
        return f"BlockOrder({self.source!r}, seed={self.seed}, {self.per_block} shards)"

    def _shards(self, epoch, block):
        order = permutation(len(self.source.shards), self.seed, epoch)
        return order[block * self.per_block :][: self.per_block].tolist()

    def _following(self, epoch, block):
        last = block + 1 == self.count
        return (epoch + 1, 0) if last else (epoch, block + 1)

    def _block(self, epoch, block):
        with self._lock:
            if (epoch, block) not in self._blocks:
                self._blocks[epoch, block] = self._made(epoch, block)
                while len(self._blocks) > BLOCKS:
                    self._blocks.popitem(last=False)
            return self._blocks[epoch, block]

    def _made(self, epoch, block):
        shards = self._shards(epoch, block)
        if self.opened is not None:
            self.opened(shards, self._shards(*self._following(epoch, block)))
        starts = np.cumsum([0, *(self.source.size_of(shard) for shard in shards)])
        groups = int(starts[-1]) // self.group
        order = permutation(groups, self.seed, epoch, block)
        return _Block(shards, starts, order)

    def cursor(self, position):
        """position: what `position` gave, or a global sample number.

        A bare number is walked to from the start of its epoch where the number of all
        samples is known, otherwise from the very start.
        """
        if isinstance(position, dict):
            return Cursor(**position)
        total = getattr(self.source, "total", None)
        epoch, place = divmod(position, total) if total else (0, position)
        return self.skip(Cursor(position - place, epoch, 0, 0), place)

    def position(self, cursor):
        """What a checkpoint keeps of a cursor: nothing is counted anew."""
        return cursor._asdict()

    def skip(self, cursor, count):
        """The cursor `count` samples on.

        Raises:
            BadInput: a whole epoch without a sample.
        """
        number, epoch, block, offset = cursor
        left, empty = offset + count, 0
        while left >= (size := int(self._block(epoch, block).starts[-1])):
            left -= size
            empty = 0 if size else empty + 1
            if empty > 2 * self.count:
                raise BadInput(
                    f"None of the {len(self.source.shards)} shards, beginning with "
                    f"{self.source.shards[0]}, has a sample that can be used."
                )
            epoch, block = self._following(epoch, block)
        return Cursor(number + count, epoch, block, left)

    def records(self, cursor, rows):
        """Record numbers of some rows (ascending) of the batch that begins there."""
        found, at = [], cursor
        for row in rows:
            at = self.skip(at, cursor.number + row - at.number)
            found.append(self._record(at))
        return found

    def _record(self, at):
        shards, starts, order = self._block(at.epoch, at.block)
        which_group, offset = divmod(at.offset, self.group)
        if which_group < len(order):
            which_group = int(order[which_group])
        place = which_group * self.group + offset
        which = int(np.searchsorted(starts, place, side="right")) - 1
        return self.source.first_of(shards[which]) + place - int(starts[which])

    def after(self, record):
        """The next record in its shard, or the first of the next shard that has one."""
        source, shard = self.source, self.source.shard_of(record)
        if record + 1 < source.first_of(shard) + source.size_of(shard):
            return record + 1
        n = len(source.shards)
        others = ((shard + step) % n for step in range(1, n + 1))
        return source.first_of(next(s for s in others if source.size_of(s)))
