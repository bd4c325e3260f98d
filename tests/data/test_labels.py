"""What a sample says of itself: captions under other names, and labels of classes."""

import dataclasses
import json

import numpy as np
import pytest

from dalle2_jax.data.batches import captioned_batches
from dalle2_jax.data.labels import Classes, classes_of
from dalle2_jax.data.lazy_shards import LazyShards
from dalle2_jax.data.shapes import SHAPES
from dalle2_jax.data.sources import open_shards
from dalle2_jax.data.write_shapes import make_shapes
from dalle2_jax.errors import BadInput
from dalle2_jax.train.run import Data
from tests.data.test_records import sample, shard

META = {"key": "a", "long": "a cat asleep", "things": [{"shape": "ring"}], "n": 7}
NEED = ("picture",)


def opened(folder, caption, index="all"):
    data = Data(16, 1, caption=caption, index=index, bad=1.0)
    return data, open_shards(folder, data, need=NEED)


@pytest.fixture
def folder(tmp_path):
    shard(tmp_path / "0.tar", [*sample("a", meta=json.dumps(META).encode())])
    return tmp_path


@pytest.mark.parametrize("index", ["all", "lazy"])
@pytest.mark.parametrize(
    "name, said",
    [("long", "a cat asleep"), ("things.0.shape", "ring"), ("n", "7")],
)
def test_a_caption_is_the_field_that_is_named(folder, name, said, index):
    _, source = opened(folder, name, index)
    assert isinstance(source, LazyShards) == (index == "lazy")
    assert list(source.captions()) == [said] and source[0].caption == said
    assert source.pair(0)[1] == said


def test_or_a_member(tmp_path):
    members = [*sample("a"), ("a.cls", b"3\n"), *sample("b"), ("b.cls", b"0")]
    shard(tmp_path / "0.tar", members)
    _, source = opened(tmp_path, "cls")
    assert list(source.captions()) == ["3", "0"]


@pytest.mark.parametrize("name", ["nowhere", "things", "things.1.shape", "things.x"])
def test_one_that_is_nowhere_is_an_error(folder, name):
    with pytest.raises(BadInput, match=f"caption is '{name}'.* has key, long, things"):
        opened(folder, name)


def test_shards_without_a_sample_are_left_to_those_who_read_them(tmp_path):
    shard(tmp_path / "0.tar", [("a.txt", b"no picture")])
    _, source = opened(tmp_path, "long", "lazy")
    assert source.size_of(0) == 0


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "s"
    make_shapes("simple", 30, 0, folder, 16)
    data, source = opened(folder, "things.0.shape")
    return data, source, [record.meta["things"][0]["shape"] for record in source]


@pytest.mark.parametrize("workers", [0, 1])
def test_labels_are_the_numbers_of_their_classes(shapes, workers):
    data, source, names = shapes
    data = dataclasses.replace(data, workers=workers)
    batches = captioned_batches(source, Classes(SHAPES), data, 30, 0)
    found = next(batches).tokens
    batches.close()
    assert found.shape == (30, 1)
    counts = [names.count(shape) for shape in SHAPES]
    np.testing.assert_array_equal(np.bincount(found[:, 0]), counts)


def test_what_is_no_class_gives_way_and_is_said(shapes):
    data, source, names = shapes
    batches = captioned_batches(source, Classes(SHAPES[:4]), data, 30, 0)
    found, skipped = next(batches).tokens, batches.skipped
    batches.close()
    assert "ring" in names
    assert set(found[:, 0]) == {SHAPES.index(n) for n in set(names) - {"ring"}}
    (reason,) = skipped
    assert reason == f"has the label 'ring', which is none of {', '.join(SHAPES[:4])}."
    with pytest.raises(BadInput, match="has no label"):
        Classes(SHAPES).check("")


def test_classes_without_names_are_numbers():
    thousand = classes_of((), 1000)
    assert thousand.encode(["0", "999", "1000", "cat"]).tolist() == [
        [0],
        [999],
        [-1],
        [-1],
    ]
    assert thousand.said() == "0, 1, 2, 3, 4, 5, 6, 7, ..."
