"""The reader: right on real pictures of any sharpness, never right about nothing."""

import numpy as np
import pytest
from PIL import Image

from dalle2_jax.data.read_shapes import read
from dalle2_jax.data.score_shapes import score
from dalle2_jax.data.shapes import Spec, Thing
from dalle2_jax.data.write_shapes import evaluation_specs
from dalle2_jax.errors import BadInput

RED_SQUARE, BLUE_RING = Thing("square", "red"), Thing("ring", "blue")
PAIR = Spec("pairs", (RED_SQUARE, BLUE_RING), "white", "left of")


def enlarged_from_16(images):
    boxed = [Image.fromarray(i).resize((16, 16), Image.BOX) for i in images]
    return np.stack([np.asarray(i.resize((64, 64), Image.BICUBIC)) for i in boxed])


def stained(images):
    """Colour noise in patches, as an unfinished model leaves it."""
    rng = np.random.default_rng(0)
    patches = rng.normal(0.0, 14.0, (len(images), 8, 8, 3)).repeat(8, 1).repeat(8, 2)
    return np.clip(images + patches, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("held_out", [True, False])
@pytest.mark.parametrize("world, count", [("simple", 1), ("pairs", 1), ("pairs", 2)])
def test_real_pictures_are_read_right(world, count, held_out):
    wanted = evaluation_specs(world, 150, 11, held_out, count=count)
    blurred = enlarged_from_16(wanted.images)
    for images, least in (
        (wanted.images, 0.99),
        (blurred, 0.97),
        (stained(blurred), 0.97),
    ):
        right = score(wanted.specs, read(images, world))
        assert {name: v.mean() for name, v in right.items() if v.mean() < least} == {}


def test_other_picture_sizes_are_read_too():
    for size in (16, 48, 128):
        wanted = evaluation_specs("simple", 60, 3, size=size)
        assert score(wanted.specs, read(wanted.images, "simple"))["all"].mean() >= 0.97


def test_a_picture_of_nothing_is_wrong_but_no_error():
    wanted = evaluation_specs("pairs", 4, 0)
    rng = np.random.default_rng(0)
    blank = np.full((4, 64, 64, 3), 240, np.uint8)
    noise = rng.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    green = np.broadcast_to(np.uint8([0, 255, 0]), (4, 64, 64, 3))
    for images in (blank, noise, green):
        for world in ("simple", "pairs"):
            right = score(wanted.specs, read(images, world))
            assert not right["shape"].any() and not right["all"].any()
    assert {spec.background for spec in read(green, "simple")} == {""}


def test_no_pictures_give_no_specs():
    assert read(np.zeros((0, 64, 64, 3), np.uint8), "simple") == []


def test_wrong_arrays_and_worlds_are_refused():
    with pytest.raises(BadInput, match="uint8"):
        read(np.zeros((1, 64, 64, 3), np.float32), "simple")
    with pytest.raises(BadInput, match="'full' cannot be read"):
        read(np.zeros((1, 64, 64, 3), np.uint8), "full")
    with pytest.raises(BadInput, match="2 specs are wanted"):
        score([PAIR, PAIR], [PAIR])


def scored(seen):
    return {name for name, right in score([PAIR], [seen]).items() if not right[0]}


def test_each_attribute_is_scored_by_itself():
    swapped = (Thing("square", "blue"), Thing("ring", "red"))
    assert scored(PAIR) == set()
    assert scored(PAIR._replace(background="grey")) == {"background", "all"}
    assert scored(PAIR._replace(things=swapped)) == {"both", "all"}
    assert scored(PAIR._replace(relation="right of")) == {"relation", "all"}
    assert scored(PAIR._replace(relation="above")) == {"relation", "all"}
    turned = PAIR._replace(things=(BLUE_RING, RED_SQUARE), relation="right of")
    assert scored(turned) == set()
    alone = Spec("pairs", (Thing("square", "red", "small", "left"),), "white")
    everything = set(score([PAIR], [PAIR])) - {"background"}
    assert scored(alone) == everything


def test_equal_colours_do_not_hide_a_wrong_order():
    things = (Thing("square", "red"), Thing("ring", "red"))
    wanted = PAIR._replace(things=things)
    seen = PAIR._replace(things=things[::-1])
    right = score([wanted], [seen])
    assert right["both"][0] and not right["relation"][0]
