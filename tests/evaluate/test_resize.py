"""Resizes are those of the packages whose names they carry."""

import numpy as np
import pytest
import torch
from PIL import Image

from dalle2_jax.evaluate.resize import RESIZES, clean, legacy_pytorch, legacy_tf

SHAPES = [(24, 24), (64, 48), (31, 90)]


def pictures(shape):
    return np.random.default_rng(0).integers(0, 256, (2, *shape, 3), dtype=np.uint8)


def test_legacy_tf_starts_at_the_first_pixel_and_holds_the_last():
    row = np.array([0, 80, 40], np.uint8)[None, None, :, None]
    images = np.broadcast_to(row, (1, 3, 3, 3))
    wide = np.array(legacy_tf(images, 6))[0, :, :, 0]
    np.testing.assert_allclose(wide[0], [0, 40, 80, 60, 40, 40])
    np.testing.assert_allclose(wide, wide[:1].repeat(6, 0))
    np.testing.assert_allclose(
        np.array(legacy_tf(images[:, :, :2], 1))[0, 0, 0], [0, 0, 0]
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_legacy_pytorch_is_torchs(shape):
    x = pictures(shape)
    theirs = torch.nn.functional.interpolate(
        torch.tensor(x.transpose(0, 3, 1, 2)).float(), (40, 40), mode="bilinear"
    )
    theirs = theirs.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(legacy_pytorch(x, 40), theirs, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_clean_is_pillows_bicubic_in_float(shape):
    x = pictures(shape)
    bands = [Image.fromarray(x[0, :, :, i].astype(np.float32)) for i in range(3)]
    theirs = [band.resize((40, 40), Image.Resampling.BICUBIC) for band in bands]
    theirs = np.stack([np.asarray(band) for band in theirs], -1).clip(0, 255)
    np.testing.assert_allclose(clean(x, 40)[0], theirs, atol=5e-3)


@pytest.mark.parametrize("name", sorted(RESIZES))
def test_what_has_the_size_already_stays_as_it_is(name):
    x = pictures((24, 24))
    same = np.asarray(RESIZES[name](x, 24))
    assert same.dtype == np.float32
    np.testing.assert_allclose(same, x, atol=1e-4)
