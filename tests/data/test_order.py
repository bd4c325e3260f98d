"""Block shuffle: whole shards at a time, once per epoch, one order however read."""

import json
from itertools import islice

import numpy as np
import pytest

from dalle2_jax.data.batches import captioned_batches, rows_of
from dalle2_jax.data.lazy_shards import LazyShards
from dalle2_jax.data.order import BlockOrder, GlobalOrder
from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.data.write_shapes import make_shapes
from dalle2_jax.errors import BadInput
from dalle2_jax.train.run import Data

TOKENIZER = Tokenizer.train(["a red circle on white"], 600)
DATA = Data(16, 12, group=2, threads=2, shuffle_shards=2)


class Sizes:
    """Shards of given sizes, and which of them were looked at."""

    def __init__(self, sizes, known=True):
        self.shards, self.seen = [f"{i}.tar" for i in range(len(sizes))], []
        self.sizes, self.starts = sizes, np.cumsum([0, *sizes]).tolist()
        self.total = sum(sizes) if known else None

    def size_of(self, shard):
        self.seen.append(shard)
        return self.sizes[shard]

    def first_of(self, shard):
        return self.starts[shard]

    def shard_of(self, record):
        return int(np.searchsorted(self.starts, record, side="right")) - 1


def walked(order, position, count):
    return order.records(order.cursor(position), range(count))


@pytest.mark.parametrize("sizes", [[3], [5, 0, 4, 7, 1], [0, 0, 2], [10] * 7])
@pytest.mark.parametrize("per_block", [1, 2, 5, 50])
@pytest.mark.parametrize("group", [1, 2])
def test_every_record_comes_once_per_epoch(sizes, per_block, group):
    n = sum(sizes)
    found = walked(BlockOrder(Sizes(sizes), 3, per_block, group), 0, 3 * n)
    epochs = [found[e * n : (e + 1) * n] for e in range(3)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    assert n < 50 or len(set(map(tuple, epochs))) == 3


def test_a_block_is_read_before_the_next_one_is_opened():
    source = Sizes([10] * 9, known=False)
    opened = []
    order = BlockOrder(source, 0, 3, opened=lambda now, after: opened.append(now))
    found = walked(order, 0, 30)
    shards = [source.shard_of(record) for record in found]
    assert len(opened) == 1 and set(shards) == set(opened[0]) == set(source.seen)
    assert len(set(shards[:10])) == 3, "the shards of a block are mixed"


@pytest.mark.parametrize("known", [True, False])
def test_any_position_is_found_again(known):
    sizes = [5, 0, 4, 7, 1, 3]
    order = BlockOrder(Sizes(sizes), 1, 2)
    whole = walked(order, 0, 70)
    for number in (0, 1, 19, 20, 21, 47):
        again = BlockOrder(Sizes(sizes, known), 1, 2)
        assert walked(again, number, 20) == whole[number : number + 20]
        saved = json.loads(json.dumps(order.position(order.cursor(number))))
        assert saved["number"] == number
        assert (
            walked(BlockOrder(Sizes(sizes, known), 1, 2), saved, 20)
            == (whole[number : number + 20])
        )
    assert GlobalOrder(20, 1).cursor(saved) == 47


def test_the_next_record_stays_in_its_shard_while_there_is_one():
    order = BlockOrder(Sizes([2, 0, 3]), 0, 2)
    assert [order.after(i) for i in range(5)] == [1, 2, 3, 4, 0]


def test_shards_without_a_sample_are_an_error_and_no_endless_walk():
    with pytest.raises(BadInput, match="None of the 3 shards"):
        walked(BlockOrder(Sizes([0, 0, 0], known=False), 0, 2), 0, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "s"
    make_shapes("simple", 34, 0, folder, 16, shard_size=8)
    return folder


def taken(source, count, **options):
    batches = captioned_batches(source, TOKENIZER, DATA, 8, 5, **options)
    found = list(islice(batches, count))
    return [np.concatenate(part) for part in zip(*found)], batches.position


def same(one, two):
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


def test_lazy_and_indexed_shards_have_one_order(folder):
    eager, _ = taken(ShardSource(folder), 12)
    lazy, position = taken(LazyShards(folder), 12)
    same(eager, lazy)
    assert position["number"] == 96 and position["epoch"] == 2


def test_a_lazy_run_goes_on_exactly_on_another_number_of_hosts(folder):
    whole, _ = taken(LazyShards(folder), 12)
    _, position = taken(LazyShards(folder), 5)
    position = json.loads(json.dumps(position))
    for hosts in (1, 2, 4):
        parts = [
            taken(LazyShards(folder), 7, start=position, rows=rows_of(8, i, hosts))[0]
            for i in range(hosts)
        ]
        for total, *shares in zip(whole, *parts):
            rows = [p.reshape(7, -1, *p.shape[1:]) for p in shares]
            merged = np.concatenate(rows, axis=1).reshape(56, *total.shape[1:])
            np.testing.assert_array_equal(merged, total[40:])


def test_only_the_shards_of_the_blocks_at_hand_are_indexed(folder):
    source, opened = LazyShards(folder), []

    def watched(shards, following):
        opened.append((shards, following))
        source.open(shards)

    order = BlockOrder(source, 0, 2, opened=watched)
    order.records(order.cursor(0), range(2))
    assert len(opened) == 1 and len(source.reader.selected.things) == 2


def test_blocks_need_shards():
    with pytest.raises(BadInput, match="data.shuffle_shards shuffles tar shards"):
        captioned_batches([1, 2], TOKENIZER, DATA, 2, 0)
