"""The generated worlds: held-out pairs, hard partners, one set of bytes per seed."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest

from dalle2_jax.data.captions import PLACE_WORDS, SHAPE_WORDS, SIZE_WORDS, caption
from dalle2_jax.data.render_shapes import render
from dalle2_jax.data.shapes import (
    COLOURS,
    HELD_OUT,
    WORLDS,
    canonical,
    change_one,
    changes,
    draw_spec,
    has_held_out,
    spec_of,
)
from dalle2_jax.data.write_shapes import evaluation_specs, make_shapes
from dalle2_jax.errors import BadInput


def some_specs(world, n=200, held_out=None):
    return [draw_spec(world, np.random.default_rng(i), held_out) for i in range(n)]


def members(path):
    with tarfile.open(path) as tar:
        return [(m.name, tar.extractfile(m).read()) for m in tar]


def differing(one, two):
    """Names of the attributes in which two specs with as many things differ."""
    parts = [(one.background, two.background, "background")]
    parts += [(one.relation, two.relation, "relation")]
    for a, b in zip(one.things, two.things, strict=True):
        parts += [(x, y, name) for x, y, name in zip(a, b, a._fields)]
    return [name for x, y, name in parts if x != y]


@pytest.mark.parametrize("world", WORLDS)
def test_training_never_shows_a_held_out_pair_and_evaluation_always_does(world):
    assert not any(map(has_held_out, some_specs(world, held_out=False)))
    assert all(map(has_held_out, some_specs(world, held_out=True)))
    seen = {(t.shape, t.colour) for s in some_specs(world, 3000) for t in s.things}
    assert seen >= HELD_OUT and len(seen) == 40


@pytest.mark.parametrize("world", WORLDS)
def test_partners_differ_in_one_attribute_or_trade_their_colours(world):
    for number, spec in enumerate(some_specs(world, held_out=False)):
        partner = change_one(spec, np.random.default_rng(number))
        assert not has_held_out(partner)
        assert canonical(partner) != canonical(spec)
        names = differing(spec, partner)
        traded = names == ["colour", "colour"] and len(spec.things) == 2
        assert len(names) == 1 or traded, (spec, partner)


def test_every_kind_of_change_is_offered():
    kinds = {kind for s in some_specs("pairs") for kind, made in changes(s) if made}
    named = {"shape", "colour", "size", "place", "background", "relation", "trade"}
    assert kinds == named


@pytest.mark.parametrize("world", WORLDS)
def test_specs_survive_json(world):
    for spec in some_specs(world, 20):
        assert spec_of(json.loads(json.dumps(spec.as_dict()))) == spec


def test_a_relation_read_from_either_side_is_the_same_picture():
    spec = draw_spec("pairs", np.random.default_rng(0), count=2)
    turned = {"left of": "right of", "right of": "left of"}
    turned.update(above="below", below="above")
    other = spec._replace(things=spec.things[::-1], relation=turned[spec.relation])
    assert canonical(spec) == canonical(other)


def test_captions_name_every_attribute_in_several_ways():
    rng = np.random.default_rng(0)
    for spec in some_specs("simple", 50):
        thing, said = spec.things[0], {caption(spec, rng) for _ in range(60)}
        assert len(said) >= 6
        for text in said:
            assert thing.colour in text and spec.background in text
            assert any(word in text for word in SHAPE_WORDS[thing.shape])
            assert any(word in text for word in SIZE_WORDS[thing.size])
            assert any(word in text for word in PLACE_WORDS[thing.place])


def test_no_two_captions_of_different_pictures_are_equal():
    rng, spoken = np.random.default_rng(0), {}
    for spec in some_specs("pairs", 2000):
        text = caption(spec, rng)
        assert spoken.setdefault(text, canonical(spec)) == canonical(spec)


def test_the_object_has_its_colour_and_its_area():
    spec = draw_spec("simple", np.random.default_rng(3))
    thing = spec.things[0]._replace(shape="circle", size="large", place="centre")
    picture = render(spec._replace(things=(thing,)), 64, np.random.default_rng(0))
    assert np.abs(picture[32, 32] - np.float32(COLOURS[thing.colour])).max() <= 10
    inside = np.abs(picture - picture[0, 0].astype(float)).max(-1) > 20
    np.testing.assert_allclose(inside.mean(), np.pi * 0.303**2, rtol=0.12)


@pytest.mark.parametrize("size", [16, 64, 100, 256])
def test_any_size_can_be_drawn(size):
    for world in WORLDS:
        picture = render(some_specs(world, 1)[0], size, np.random.default_rng(0))
        assert picture.shape == (size, size, 3) and picture.dtype == np.uint8


def test_equal_arguments_give_equal_bytes(tmp_path):
    def digests(name, seed):
        paths = make_shapes("pairs", 50, seed, tmp_path / name, 32, shard_size=20)
        assert [p.name for p in paths] == ["00000.tar", "00001.tar", "00002.tar"]
        return [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths]

    assert digests("a", 1) == digests("b", 1)
    assert not set(digests("c", 2)) & set(digests("a", 1))


def test_shards_hold_partners_side_by_side_and_no_held_out_pair(tmp_path):
    from PIL import Image

    paths = make_shapes("simple", 40, 0, tmp_path / "s", shard_size=20)
    found = [member for path in paths for member in members(path)]
    assert [name for name, _ in found[:3]] == [
        "000000000.png",
        "000000000.txt",
        "000000000.json",
    ]
    assert Image.open(io.BytesIO(found[0][1])).size == (64, 64)
    fields = [json.loads(data) for name, data in found if name.endswith("json")]
    texts = [data.decode() for name, data in found if name.endswith("txt")]
    assert [f["caption"] for f in fields] == texts
    specs = [spec_of(f) for f in fields]
    assert not any(map(has_held_out, specs))
    assert all(len(differing(a, b)) == 1 for a, b in zip(specs[::2], specs[1::2]))


def test_a_folder_is_made_once_and_never_overwritten(tmp_path):
    folder = tmp_path / "s"
    before = [p.stat().st_mtime_ns for p in make_shapes("simple", 4, 0, folder, 16)]
    again = [p.stat().st_mtime_ns for p in make_shapes("simple", 4, 0, folder, 16)]
    assert before == again
    with pytest.raises(BadInput, match="holds something else"):
        make_shapes("simple", 6, 0, folder, 16)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_what_cannot_be_made_is_said(tmp_path):
    with pytest.raises(BadInput, match="no world 'cubes'"):
        make_shapes("cubes", 4, 0, tmp_path / "s")
    with pytest.raises(BadInput, match="size is 8"):
        make_shapes("simple", 4, 0, tmp_path / "s", 8)
    with pytest.raises(BadInput, match="partners would be parted"):
        make_shapes("simple", 4, 0, tmp_path / "s", shard_size=3)


def test_evaluation_is_a_function_of_the_sample():
    few, many = (evaluation_specs("simple", n, 5, size=32) for n in (3, 6))
    assert few.specs == many.specs[:3] and few.captions == many.captions[:3]
    np.testing.assert_array_equal(few.images, many.images[:3])
    assert all(map(has_held_out, many.specs))
    pairs = evaluation_specs("pairs", 6, 5, size=32, count=2).specs
    assert [len(s.things) for s in pairs] == [2] * 6
