"""How fast pictures come out of the shards, beside decoding them and nothing else."""

import importlib.util
import os
import time
from contextlib import contextmanager

import numpy as np

from dalle2_jax.data.batches import captioned_batches
from dalle2_jax.data.images import decode

BARE, OURS, THEIRS = "bare decode", "pipeline", "webdataset"
PICTURES = 512  # in a round, at least
QUIET = 0.05  # seconds


def measure(source, tokenizer, data, batch, rounds, cores=1):
    """Samples per second and core of the pipeline and of bare decode, taking turns.

    Seconds are those that the core spends on this process, so that others on the
    machine count less; with data.workers, which are others, they pass on the clock.

    Args:
        source: ShardSource; a round is one pass over 512 of its pictures.
        tokenizer: of the captions.
        data: as for `captioned_batches`, without a cache.
        batch: pictures of a batch.
        rounds: of each.
        cores: that the pipeline may use; bare decode has one.

    Returns:
        {name: [samples per second and core in each round]}; "webdataset" where that
        library is installed, with the same decoding.
    """
    count = -(-PICTURES // batch) * batch
    images = [source[i % len(source)].image for i in range(count)]
    ways = {
        BARE: lambda turn: _bare(images, data.size),
        OURS: lambda turn: _ours(source, tokenizer, data, batch, count, turn),
    }
    plain = not os.path.isdir(source.shards[0])  # webdataset reads tars alone
    if plain and importlib.util.find_spec("webdataset"):
        ways[THEIRS] = lambda turn: _theirs(source, tokenizer, data, batch, count)
    clock = time.perf_counter if data.workers else time.process_time
    found = {name: [] for name in ways}
    for turn in range(rounds + 1):  # the first warms up
        for name, way in ways.items():
            share = cores if name == OURS and data.workers else 1
            with _pinned(share):
                began = clock()
                done = way(turn)
                rate = done / (clock() - began) / share
            found[name] += [rate] if turn else []
    return found


def ratio(found, name):
    """The median over rounds of a rate over bare decode's in the same round."""
    return float(np.median(np.divide(found[name], found[BARE])))


@contextmanager
def _pinned(cores):
    """This thread, and those that it starts, on the first few of its cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _settle():
    """Waits until what was prepared in advance is done with."""
    spent = -1.0
    while time.process_time() - spent > QUIET / 10:
        spent = time.process_time()
        time.sleep(QUIET)


def _bare(images, size):
    for image in images:
        decode(image, size)
    return len(images)


def _ours(source, tokenizer, data, batch, count, turn):
    start = turn * count
    batches = captioned_batches(source, tokenizer, data, batch, 0, start)
    for _ in range(count // batch):
        next(batches)
    batches.close()
    if data.workers:
        return count
    _settle()
    return batches.maker.notes.tried  # with those prepared in advance


def _theirs(source, tokenizer, data, batch, count):
    import webdataset

    samples = webdataset.WebDataset(source.shards, shardshuffle=False, repeat=True)
    pairs = samples.to_tuple("jpg;jpeg;png;webp", "txt").map_tuple(
        lambda image: decode(image, data.size), bytes.decode
    )
    done = 0
    for images, captions in pairs.batched(batch).slice(count // batch):
        np.stack(images)
        tokenizer.encode(list(captions), data.context)
        done += len(images)
    return done
