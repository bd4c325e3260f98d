"""What --data names; remote shards, indexed in turn or once for all hosts."""

from itertools import islice

import fsspec
import numpy as np
import pytest

from dalle2_jax.data import shard_index, stores
from dalle2_jax.data.batches import captioned_batches
from dalle2_jax.data.lazy_shards import LazyShards
from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.shard_index import index_of, publish
from dalle2_jax.data.sources import open_shards, shapes_folder, shapes_named
from dalle2_jax.data.throughput import BARE, OURS, measure, ratio
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.data.write_shapes import make_shapes
from dalle2_jax.errors import BadInput, Failed
from dalle2_jax.train.run import Data

TOKENIZER = Tokenizer.train(["a red circle on white"], 600)
DATA = Data(16, 12, threads=2, shuffle_shards=2)


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """(local folder, URL pattern) of the same 34 samples in 5 shards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    for path in make_shapes("simple", 34, 0, tmp_path / "s", 16, shard_size=8):
        store.pipe(f"/b/{path.name}", path.read_bytes())
    yield tmp_path / "s", "memory://b/{00000..00004}.tar"
    store.rm("/b", recursive=True)


def taken(source, count=9):
    batches = captioned_batches(source, TOKENIZER, DATA, 8, 5)
    return [np.concatenate(part) for part in zip(*islice(batches, count))]


def test_remote_and_local_shards_have_one_order(bucket):
    local, url = bucket
    whole = taken(ShardSource(local))
    for source in (
        ShardSource(url),
        LazyShards(url),
        LazyShards(f"file://{local}/*.tar"),
    ):
        for ours, theirs in zip(whole, taken(source), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_published_index_spares_other_hosts_the_shard(bucket, monkeypatch, tmp_path):
    _, url = bucket
    shard = url.replace("{00000..00004}", "00000")
    assert len(publish(shard).keys) == 8
    assert fsspec.filesystem("memory").exists("/b/00000.tar.idx")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another host"))
    monkeypatch.setattr(shard_index, "build_index", None)
    assert len(index_of(shard).keys) == 8


def test_a_failing_store_is_asked_again(bucket, monkeypatch):
    _, url = bucket
    shard = url.replace("{00000..00004}", "00000")
    monkeypatch.setattr(stores, "pause", lambda seconds: False)
    store, calls = fsspec.filesystem("memory"), []
    real = type(store).cat_file

    def failing(self, path, start=None, end=None):
        calls.append(start)
        if len(calls) < limit:
            raise OSError("503")
        return real(self, path, start=start, end=end)

    monkeypatch.setattr(type(store), "cat_file", failing)
    limit = 3
    assert len(stores.read(shard, 0, 10)) == 10 and len(calls) == 3
    limit = 100
    with pytest.raises(Failed, match="00000.tar .*503"):
        stores.read(shard, 0, 10)


def test_many_shards_are_indexed_in_turn(bucket, monkeypatch):
    local, _ = bucket
    assert isinstance(open_shards(local, DATA), ShardSource)
    monkeypatch.setattr("dalle2_jax.data.sources.MANY", 4)
    assert isinstance(open_shards(local, DATA), LazyShards)
    lazy = Data(16, 12, index="all")
    assert isinstance(open_shards(local, lazy), ShardSource)


def test_generated_data_are_named(tmp_path):
    assert shapes_named("shapes:pairs") == ("pairs", 24_000)
    assert shapes_named(["shapes:simple:200"]) == ("simple", 200)
    assert shapes_named([tmp_path]) is None and shapes_named(["a", "b"]) is None
    assert shapes_folder("simple", 200, 32, tmp_path) == (
        tmp_path / "simple-200-64px",
        64,
    )
    with pytest.raises(BadInput, match="no world 'cubes'"):
        shapes_named("shapes:cubes")
    with pytest.raises(BadInput, match="is no generated data set"):
        shapes_named("shapes:simple:many")


def test_reading_is_measured_beside_decoding(bucket):
    local, _ = bucket
    data = Data(16, 12, threads=1, cache=0)
    found = measure(ShardSource(local), TOKENIZER, data, 64, rounds=2)
    assert all(len(rates) == 2 and min(rates) > 0 for rates in found.values())
    assert ratio(found, BARE) == 1 and ratio(found, OURS) > 0
