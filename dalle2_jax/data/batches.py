"""Batches of captioned pictures in a fixed order, from any global sample number on."""

import threading
from typing import NamedTuple

import grain
import numpy as np

from dalle2_jax.data.order import BlockOrder, GlobalOrder
from dalle2_jax.data.samples import SLOTS, Maker, Workers
from dalle2_jax.data.skipped import Skipped
from dalle2_jax.errors import BadInput

AHEAD = 4  # batches prepared in advance
MOST_BATCHES = 2**40
LAZY_BLOCK = 16  # shards in a block, where blocks are needed and data names no number


class Captioned(NamedTuple):
    """image: uint8 [b, y, x, 3]. tokens: int32 [b, n]."""

    image: np.ndarray
    tokens: np.ndarray


class Pictures:
    """Makes batches from record numbers; a broken picture gives way to the next good.

    Args:
        maker: Maker or Workers.
        order: which record is the next one.
        skipped: Skipped.
        shape: of the pictures of a batch.
        context: tokens of a caption.
    """

    def __init__(self, maker, order, skipped, shape, context):
        self.maker, self.order, self.notes = maker, order, skipped
        self.shape, self.context, self.bad = shape, context, set()

    @property
    def skipped(self):
        """Reason -> names of the samples that were replaced so far."""
        with self.notes.lock:
            return {r: list(names) for r, names in self.notes.names.items()}

    def batch(self, records):
        """Captioned, one row for each record number."""
        return self.made(records)[0]

    def made(self, records):
        """`batch` of the records, and the records that its rows are of."""
        image = np.empty((len(records), *self.shape), np.uint8)
        made = Captioned(image, np.empty((len(records), self.context), np.int32))
        wanted = [self._good(record) for record in records]
        faults = self.maker.fill(wanted, *made)
        self.notes.good(len(records) - len(faults))
        for fault in faults:
            row = slice(fault.row, fault.row + 1)
            one = Captioned(made.image[row], made.tokens[row])
            wanted[fault.row] = self._replaced(wanted[fault.row], fault, one)
        return made, wanted

    def _replaced(self, record, fault, one):
        """Fills a batch of one anew; the record that could be decoded."""
        while fault:
            self.bad.add(record)
            self.notes.broken(fault.shard, fault.key, fault.reason)
            record = self._good(record)
            fault = next(iter(self.maker.fill([record], *one)), None)
        self.notes.good(1)
        return record

    def _good(self, record):
        """The record, or the next one not known to be broken."""
        found = record
        while found in self.bad:
            found = self.order.after(found)
            if found == record:
                raise BadInput(f"No picture can be decoded; {self.notes.worst()}.")
        return found

    def close(self):
        """Ends worker processes."""
        self.maker.close()


class Remembered:
    """Keeps what `Pictures` made of each of n records; later epochs are copies."""

    def __init__(self, pictures, n):
        self.pictures = pictures
        self.images = np.empty((n, *pictures.shape), np.uint8)
        self.tokens = np.empty((n, pictures.context), np.int32)
        self.known = np.zeros(n, bool)

    @property
    def skipped(self):
        """As `Pictures.skipped`."""
        return self.pictures.skipped

    def batch(self, records):
        """As `Pictures.batch`."""
        records = np.asarray(records)
        if self.known[records].all():
            return Captioned(self.images[records], self.tokens[records])
        made = self.pictures.batch(records.tolist())
        self.images[records], self.tokens[records] = made
        self.known[records] = True
        return made

    def close(self):
        """As `Pictures.close`."""
        self.pictures.close()


class _Blocks:
    """A grain source whose element i is (batch i after the start, the next position).

    Cursors are handed on from batch to batch, so that an order may be one that only
    knows what comes next.
    """

    def __init__(self, maker, order, rows, batch, position):
        self.maker, self.order, self.rows, self.size = maker, order, rows, batch
        self.last, self.lock = order.cursor(position), threading.Lock()
        self.spans, self.reached = {}, 0

    def __len__(self):
        return MOST_BATCHES

    def __repr__(self):
        return f"_Blocks({self.order}, batch={self.size})"

    def _span(self, i):
        """Where batch i begins and ends."""
        with self.lock:
            while self.reached <= i:
                begin, self.last = self.last, self.order.skip(self.last, self.size)
                self.spans[self.reached] = begin, self.last
                self.reached += 1
            return self.spans.pop(i)

    def __getitem__(self, i):
        begin, end = self._span(i)
        records = self.order.records(begin, self.rows)
        return self.maker.batch(records), self.order.position(end)


class Batches:
    """Endless iterator of the batches that a maker makes in an order.

    position: where the next batch begins, JSON-able; the next global sample number in
    the ordinary case.

    Args:
        maker: has batch(record numbers), skipped and close().
        order: GlobalOrder or BlockOrder.
        rows: which rows of the global batch are made here, ascending.
        batch: samples in the global batch.
        position: of the first batch.
        threads: that make batches.

    Raises:
        BadInput: the position lies before the first sample.
    """

    def __init__(self, maker, order, rows, batch, position, threads):
        if isinstance(position, int) and position < 0:
            raise BadInput(f"data cannot begin at sample {position}; take 0 or more.")
        self.position, self.maker = position, maker
        ahead = max(threads, AHEAD)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        blocks = _Blocks(maker, order, rows, batch, position)
        self._iterator = iter(grain.MapDataset.source(blocks).to_iter_dataset(options))

    @property
    def skipped(self):
        """Reason -> ["SHARD: KEY", ...] of pictures that could not be decoded."""
        return self.maker.skipped

    def __iter__(self):
        return self

    def __next__(self):
        batch, self.position = next(self._iterator)
        return batch

    def close(self):
        """Stops preparing batches and ends worker processes, if there are any."""
        self._iterator.close()
        self.maker.close()


def rows_of(batch, process_index, process_count):
    """The rows of the global batch that fall to one of `process_count` processes.

    Raises:
        BadInput: they do not get equally many.
    """
    if batch < 1 or batch % process_count:
        raise BadInput(
            f"A batch of {batch} cannot be parted among {process_count} processes; "
            "take a multiple."
        )
    share = batch // process_count
    return range(process_index * share, (process_index + 1) * share)


def order_of(source, data, seed, opened=None):
    """The order of a source: over all samples, or within blocks of whole shards.

    opened: as in BlockOrder.

    Raises:
        BadInput: data.shuffle_shards with a source that has no shards.
    """
    if data.group < 1:
        raise BadInput(f"config.data.group is {data.group}; take at least 1.")
    counted = hasattr(source, "__len__")
    if counted and not data.shuffle_shards:
        return GlobalOrder(len(source), seed, data.group)
    if not hasattr(source, "shards"):
        raise BadInput(
            "data.shuffle_shards shuffles tar shards, and this data has none; set it "
            "to 0."
        )
    per_block = data.shuffle_shards or LAZY_BLOCK
    return BlockOrder(source, seed, per_block, data.group, opened)


def captioned_batches(
    source,
    tokenizer,
    data,
    batch,
    seed,
    start=0,
    rows=None,
    log=None,
):
    """Batches from a position on, the same ones whenever they are asked for.

    Every process gets its rows of the same global batch, in order. A picture that can
    not be decoded is replaced by the next good one of its shard (or the next shard).

    Args:
        source: ShardSource, LazyShards, or anything with len and [i] -> Record.
        tokenizer: Tokenizer.
        data: has the fields of `train.run.Data`.
        batch: samples in a batch over all processes.
        seed: of the order.
        start: global number of the first sample, or a `Batches.position` to resume.
        rows: of the global batch that are read here (`rows_of`); None: all.
        log: file of JSON lines for what is left out, or None.

    Returns:
        Batches.

    Raises:
        BadInput: sizes that do not fit; from the iterator, too many broken pictures.
    """
    rows = range(batch) if rows is None else rows
    skipped = Skipped(data.bad, log)
    order = order_of(source, data, seed, watch(source, skipped))
    pictures = pictures_of(source, tokenizer, data, order, skipped, len(rows))
    n = len(source) if hasattr(source, "__len__") else None
    if n is not None and n * 3 * data.size**2 <= data.cache * 2**20:
        pictures = Remembered(pictures, n)
    return Batches(pictures, order, rows, batch, start, threads_of(data))


def pictures_of(source, tokenizer, data, order, skipped, most):
    """Pictures of a source, decoded by threads, or with data.workers by processes.

    most: samples in a batch that are read here. Else as in `captioned_batches`.
    """
    maker = Maker(source, tokenizer, data.size, data.context)
    if data.workers:
        maker = Workers(maker, data.workers, most)
    shape = (data.size, data.size, 3)
    return Pictures(maker, order, skipped, shape, data.context)


def threads_of(data):
    """Threads that prepare batches; with worker processes they only wait."""
    return SLOTS if data.workers else data.threads


def watch(source, skipped):
    """Notes what the indices leave out: now, or when a block of shards comes up.

    Args:
        source: as in `captioned_batches`.
        skipped: Skipped.

    Returns:
        What BlockOrder calls for each block, or None.
    """
    indices = getattr(source, "indices", None)
    if indices is not None:
        skipped.shards(source.shards, indices)
    if not hasattr(source, "open"):
        return None

    def opened(shards, following):
        source.open(shards, following)
        indices = map(source.reader.index, shards)
        skipped.shards([source.shards[shard] for shard in shards], list(indices))

    return opened
