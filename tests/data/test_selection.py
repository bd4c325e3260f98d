"""Filters on metadata: by the names that data sets use, on the index alone."""

import json

import pytest

from dalle2_jax.data.lazy_shards import LazyShards
from dalle2_jax.data.order import BlockOrder
from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.selection import rules_of
from dalle2_jax.errors import BadInput
from tests.data.test_records import sample, shard

LAION = [
    {"width": 512, "height": 300, "similarity": 0.31, "pwatermark": 0.2},
    {"width": 200, "height": 300, "similarity": 0.35, "pwatermark": 0.2},
    {"width": 512, "height": 300, "similarity": 0.1, "pwatermark": 0.9},
    {"width": 512, "height": 300, "similarity": None, "pwatermark": 0.1},
    {"width": 256, "height": 300, "similarity": 0.28, "pwatermark": "0.1"},
]
COYO = {"width": 640, "clip_similarity_vitl14": 0.3, "watermark_score": 0.05}


@pytest.fixture
def folder(tmp_path):
    members = [
        sample(f"l{i}", meta=json.dumps(m).encode()) for i, m in enumerate(LAION)
    ]
    shard(tmp_path / "0.tar", sum(members, []))
    meta = json.dumps(COYO | {"AESTHETIC_SCORE": 6.5}).encode()
    shard(tmp_path / "1.tar", sample("c", meta=meta))
    return tmp_path


def kept(folder, *keep):
    return [record.key for record in ShardSource(folder, keep=keep)]


def test_filters_keep_what_they_say(folder):
    assert kept(folder) == ["l0", "l1", "l2", "l3", "l4", "c"]
    assert kept(folder, "width>=256") == ["l0", "l2", "l3", "l4", "c"]
    assert kept(folder, "width > 256", "pwatermark<0.8") == ["l0", "l3", "c"]
    assert kept(folder, "similarity>=0.28") == ["l0", "l1", "l4", "c"]
    assert kept(folder, "similarity>=0.28", "width==256") == ["l4"]
    assert kept(folder, "aesthetic>=5") == ["c"]


def test_what_is_kept_out_is_counted(folder):
    source = ShardSource(folder, keep=("width>=256", "similarity>=0.28"))
    assert source.dropped == {
        "not width>=256": 1,
        "no similarity": 1,
        "not similarity>=0.28": 1,
    }
    assert source.problems == {}


def test_a_field_that_nobody_has_is_an_error(folder):
    with pytest.raises(BadInput, match="'punsafe<0.5', .* which has aesthetic_score, "):
        ShardSource(folder, keep=("punsafe<0.5",))
    lazy = LazyShards(folder, keep=("punsafe<0.5",))
    order = BlockOrder(lazy, 0, 2, opened=lazy.open)
    with pytest.raises(BadInput, match="no sample has punsafe"):
        order.cursor(5)


def test_nothing_left_is_an_error(folder):
    with pytest.raises(BadInput, match="No usable sample .*not width>=10000: 6"):
        ShardSource(folder, keep=("width>=10000",))


@pytest.mark.parametrize("text", ["width", "width>=", "width>=a", ">=3", "w=3", ""])
def test_what_is_no_filter_is_said(text):
    with pytest.raises(BadInput, match="which is no filter; write a field"):
        rules_of((text,))


def test_the_order_of_what_is_left_is_that_of_a_smaller_set(folder, tmp_path):
    lazy = LazyShards(folder, keep=("width>=256",))
    assert [lazy.size_of(s) for s in range(2)] == [4, 1]
    assert lazy[lazy.first_of(0) + 1].key == "l2"
