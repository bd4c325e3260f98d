"""Batches of captioned pictures in a fixed order, from any global sample number on."""

import threading
from typing import NamedTuple

import grain
import numpy as np

from dalle2_jax.data.images import decode
from dalle2_jax.data.order import record_at
from dalle2_jax.errors import BadInput

CACHE_BYTES = (
    512 * 2**20
)  # a whole data set of decoded pictures up to this size is kept
LEAST_BAD = 10  # so many broken pictures are borne whatever their share
AHEAD = 4  # batches prepared in advance
MOST_BATCHES = 2**40


class Captioned(NamedTuple):
    """image: uint8 [b, y, x, 3]. tokens: int32 [b, n]."""

    image: np.ndarray
    tokens: np.ndarray


class _Decoded:
    """Pictures and tokens of single records; keeps them where all fit into memory."""

    def __init__(self, source, tokenizer, data):
        self.source, self.tokenizer, self.data = source, tokenizer, data
        self.shape = (data.size, data.size, 3)
        n = len(source)
        self.cached = n * int(np.prod(self.shape)) <= CACHE_BYTES
        self.images = np.empty((n if self.cached else 0, *self.shape), np.uint8)
        self.tokens = np.empty((n if self.cached else 0, data.context), np.int32)
        self.known = np.zeros(n if self.cached else 0, bool)
        self.bad, self.skipped, self.tried = set(), {}, 0
        self.lock = threading.Lock()

    def batch(self, records):
        """Captioned, one row for each record number."""
        records = np.asarray(records)
        if self.cached and self.known[records].all():
            return Captioned(self.images[records], self.tokens[records])
        good = [self.decoded(int(record)) for record in records]
        tokens = self.tokenizer.encode([c for _, c in good], self.data.context)
        made = Captioned(np.stack([image for image, _ in good]), tokens)
        if self.cached:
            self.images[records], self.tokens[records] = made
            self.known[records] = True
        return made

    def decoded(self, record):
        """(image, caption) of a record, or of the next one that can be decoded."""
        for step in range(len(self.source)):
            number = (record + step) % len(self.source)
            if number in self.bad:
                continue
            found = self.source[number]
            name = f"{found.shard}: {found.key}"
            try:
                image = decode(found.image, self.data.size, name)
            except BadInput as error:
                self.skip(number, name, str(error).removeprefix(f"{name} "))
                continue
            with self.lock:
                self.tried += 1
            return image, found.caption
        raise BadInput(f"No picture of {self.source!r} can be decoded; {self.worst()}.")

    def skip(self, number, name, reason):
        """Notes a broken picture; BadInput when there are too many."""
        with self.lock:
            if number in self.bad:
                return
            self.bad.add(number)
            self.tried += 1
            self.skipped.setdefault(reason, []).append(name)
            bad, tried = len(self.bad), self.tried
        if bad >= LEAST_BAD and bad > self.data.bad * tried:
            raise BadInput(
                f"{bad} of {tried} pictures cannot be decoded; {self.worst()}. "
                "Mend the shards or raise data.bad, the share that is borne."
            )

    def worst(self):
        """The first sample that could not be decoded, and why."""
        reason, names = next(iter(self.skipped.items()), ("no reason", ["nowhere"]))
        return f"the first is {names[0]}, which {reason.rstrip('.')}"


class _Blocks:
    """A grain source whose element i is batch i (of one process) after `start`."""

    def __init__(self, decoded, plan, start):
        self.decoded, self.plan, self.start = decoded, plan, start

    def __len__(self):
        return MOST_BATCHES

    def __repr__(self):
        return f"_Blocks({self.plan}, start={self.start})"

    def __getitem__(self, i):
        return self.decoded.batch(self.plan.records(self.start + i * self.plan.batch))


class _Plan(NamedTuple):
    """Which records a process reads for the global batch that begins at a sample."""

    n: int
    batch: int
    seed: int
    group: int
    rows: range  # of the global batch

    def records(self, first):
        numbers = range(first + self.rows.start, first + self.rows.stop)
        return [record_at(g, self.n, self.seed, self.group) for g in numbers]


class Batches:
    """Endless iterator of Captioned. position: global sample after the last batch.

    skipped: reason -> ["SHARD: KEY", ...] of pictures that could not be decoded.
    """

    def __init__(self, decoded, plan, start, threads):
        self.position, self.batch, self._decoded = start, plan.batch, decoded
        ahead = max(threads, AHEAD)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        blocks = grain.MapDataset.source(_Blocks(decoded, plan, start))
        self._iterator = iter(blocks.to_iter_dataset(options))

    @property
    def skipped(self):
        """Reason -> names of the samples that were replaced so far."""
        with self._decoded.lock:
            return {r: list(names) for r, names in self._decoded.skipped.items()}

    def __iter__(self):
        return self

    def __next__(self):
        batch = next(self._iterator)
        self.position += self.batch
        return batch


def captioned_batches(
    source,
    tokenizer,
    data,
    batch,
    seed,
    start=0,
    process_index=0,
    process_count=1,
):
    """Batches from global sample `start` on, the same ones whenever they are asked for.

    Every process gets its rows of the same global batch, in order. A picture that can
    not be decoded is replaced by the next good one of its shard (or the next shard).

    Args:
        source: ShardSource, or anything with len and [i] -> Record.
        tokenizer: Tokenizer.
        data: has the fields size (pixels), context (tokens), group (consecutive records
            that stay together), threads, bad (share of broken pictures that is borne).
        batch: samples in a batch over all processes.
        seed: of the order.
        start: global number of the first sample; `Batches.position` to resume.
        process_index, process_count: this process among all.

    Returns:
        Batches.

    Raises:
        BadInput: sizes that do not divide; from the iterator, too many broken pictures.
    """
    if batch < 1 or batch % process_count:
        raise BadInput(
            f"A batch of {batch} cannot be parted among {process_count} processes; "
            "take a multiple."
        )
    if data.group < 1 or start < 0:
        raise BadInput(
            f"data.group is {data.group} and start {start}; take >= 1, >= 0."
        )
    share = batch // process_count
    rows = range(process_index * share, (process_index + 1) * share)
    plan = _Plan(len(source), batch, seed, data.group, rows)
    return Batches(_Decoded(source, tokenizer, data), plan, start, data.threads)
