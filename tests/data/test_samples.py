"""Worker processes make the batches that threads make, and end with their parent."""

import os
import signal
from itertools import islice

import numpy as np
import pytest

from dalle2_jax.data import samples
from dalle2_jax.data.batches import captioned_batches
from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.data.write_shapes import make_shapes
from dalle2_jax.errors import BadInput, Failed
from dalle2_jax.train.run import Data

TOKENIZER = Tokenizer.train(["a red circle on white"], 600)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "s"
    make_shapes("simple", 30, 0, folder, 16, shard_size=8)
    shard = folder / "00001.tar"
    damaged = bytearray(shard.read_bytes())
    begin = damaged.index(b"\x89PNG", 2000)
    damaged[begin : begin + 60] = bytes(60)
    shard.write_bytes(damaged)
    return ShardSource(folder)


def test_workers_and_threads_make_the_same_batches(source, tmp_path):
    found = []
    for workers in (0, 2):
        data = Data(16, 12, threads=2, workers=workers, cache=0)
        batches = captioned_batches(
            source, TOKENIZER, data, 7, 0, log=tmp_path / f"{workers}.jsonl"
        )
        made = [np.concatenate(part) for part in zip(*islice(batches, 12))]
        found.append((*made, batches.position))
        assert sum(map(len, batches.skipped.values())) == 1
        batches.close()
    for threads, workers in zip(*found):
        np.testing.assert_array_equal(threads, workers)
    logs = [(tmp_path / f"{n}.jsonl").read_text() for n in (0, 2)]
    assert logs[0] == logs[1] and "00001.tar" in logs[0]


def test_a_worker_that_dies_is_said(source):
    maker = samples.Maker(source, TOKENIZER, 16, 12)
    workers = samples.Workers(maker, 1, 4)
    images, tokens = np.empty((4, 16, 16, 3), np.uint8), np.empty((4, 12), np.int32)
    assert workers.fill([0, 1, 2, 3], images, tokens) == []
    worker = next(iter(workers.pool._processes))
    os.kill(worker, signal.SIGTERM)  # the parent's business
    assert workers.fill([0, 1], images[:2], tokens[:2]) == []
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(Failed, match="lower data.workers"):
        for _ in range(2):  # the first may still have been taken
            workers.fill([0, 1], images[:2], tokens[:2])
    workers.close()


def test_too_little_shared_memory_is_said(monkeypatch):
    room = os.statvfs("/")
    small = os.statvfs_result((4096, 4096, 9, 9, 1, *room[5:]))
    monkeypatch.setattr(samples.os, "statvfs", lambda path: small)
    with pytest.raises(BadInput, match="needs 1 MiB of shared memory and /dev/shm"):
        samples._shared(2**20)
