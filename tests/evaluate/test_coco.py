"""COCO's files on a made-up folder: which captions, which pictures, what is missing."""

import json

import numpy as np
import pytest
from PIL import Image

from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.coco import NAME, coco_captions, coco_pictures


@pytest.fixture
def coco(tmp_path):
    """Six pictures of several sizes, two captions each."""
    rng, entries = np.random.default_rng(0), []
    (tmp_path / "val2014").mkdir()
    (tmp_path / "annotations").mkdir()
    for number in range(10, 16):
        pixels = rng.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "val2014" / NAME.format(number))
        for k in (2, 1):
            words = f"picture {number} \n caption {k}"
            entries.append(
                {"image_id": number, "id": 10 * number + k, "caption": words}
            )
    path = tmp_path / "annotations" / "captions_val2014.json"
    path.write_text(json.dumps({"annotations": entries}))
    return tmp_path


def test_one_caption_of_each_picture_in_a_fixed_order(coco):
    found = coco_captions(coco, 6)
    assert sorted(found) == [f"picture {i} caption 1" for i in range(10, 16)]
    assert coco_captions(coco, 3) == found[:3]
    assert found[0] == "picture 13 caption 1"  # by SHA-256 of the number


def test_a_table_takes_the_place_of_the_annotations(coco):
    table = coco / "captions.csv"
    table.write_text('image_id,text\n12,"a cat, asleep"\n10,a dog\n')
    assert coco_captions(coco, 2, table) == ["a cat, asleep", "a dog"]


def test_the_reference_is_all_of_val2014(coco):
    found = coco_pictures(coco, 16)
    assert found.count == 6
    assert found.fetch(range(6)).shape == (6, 16, 16, 3)


def test_what_is_missing_is_named(coco):
    table = coco / "captions.csv"
    table.write_text("image,text\n12,a cat\n")
    with pytest.raises(BadInput, match="image_id.*first line names"):
        coco_captions(coco, 1, table)
    table.write_text("image_id,text\n99,a cat\n")
    with pytest.raises(BadInput, match="COCO_val2014_000000000099.jpg, named in"):
        coco_captions(coco, 1, table)
    table.write_text("image_id,text\nx,a cat\n")
    with pytest.raises(BadInput, match="image_id must be whole numbers"):
        coco_captions(coco, 1, table)
    with pytest.raises(BadInput, match="has 6 captions; lower --n from 7"):
        coco_captions(coco, 7)
    (coco / "val2014" / NAME.format(13)).unlink()
    with pytest.raises(BadInput, match="000000000013.jpg, named in captions_val2014"):
        coco_captions(coco, 6)
    path = coco / "annotations" / "captions_val2014.json"
    path.write_text("{}")
    with pytest.raises(BadInput, match="has no annotations of image_id"):
        coco_captions(coco, 1)
    path.unlink()
    with pytest.raises(BadInput, match="captions_val2014.json does not exist; put COC"):
        coco_captions(coco, 1)
    with pytest.raises(BadInput, match="val2014 does not exist; put COCO's validation"):
        coco_pictures(coco / "annotations")
