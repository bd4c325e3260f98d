"""JPEG on the device against an encoder."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dalle2_jax.decoder.jpeg import CHROMINANCE, LUMINANCE, jpeg, scaled

SMALL = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
PICTURE = np.asarray(Image.fromarray(SMALL).resize((90, 70), Image.Resampling.BICUBIC))


def encoded(picture, quality):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file


@pytest.mark.parametrize("quality", [30, 50, 75, 95])
def test_it_loses_what_an_encoder_loses(quality):
    """Sides that are no multiples of 16; encoders round in other places by one."""
    theirs = np.asarray(Image.open(encoded(PICTURE, quality)), np.float32)
    ours = jax.jit(jpeg)(PICTURE / np.float32(255), quality) * 255
    lost = np.abs(theirs - PICTURE).mean()
    assert lost > 2
    assert np.abs(ours - theirs).mean() < 1
    assert np.abs(np.abs(ours - PICTURE).mean() - lost) < 0.3


@pytest.mark.parametrize("quality", [10, 50, 90])
def test_tables_are_those_in_a_file(quality):
    theirs = Image.open(encoded(PICTURE, quality)).quantization
    for number, text in enumerate((LUMINANCE, CHROMINANCE)):
        table = np.float32(text.split())
        np.testing.assert_array_equal(scaled(table, quality), theirs[number])


def test_a_plain_picture_stays_and_values_are_bytes():
    plain = jnp.full((16, 24, 3), 100 / 255)
    np.testing.assert_allclose(jpeg(plain, 75) * 255, 100, atol=1.01)
    values = jax.jit(jpeg)(PICTURE / np.float32(255), 40) * 255
    np.testing.assert_allclose(values, np.round(values), atol=1e-3)
    assert values.min() >= 0 and values.max() <= 255
