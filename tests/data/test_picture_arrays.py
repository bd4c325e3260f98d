"""One notion of a picture: told apart by type and range, or refused."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from dalle2_jax.data.picture_arrays import as_bytes, as_floats, check_pictures
from dalle2_jax.errors import BadInput

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
FLOATS = PIXELS.astype(np.float32) / 127.5 - 1
FORMS = {
    "uint8": PIXELS,
    "float32": FLOATS,
    "float64": FLOATS.astype(np.float64),
    "jax uint8": jnp.asarray(PIXELS),
    "jax float": jnp.asarray(FLOATS),
    "PIL": [Image.fromarray(one) for one in PIXELS],
    "RGBA": [Image.fromarray(one).convert("RGBA") for one in PIXELS],
    "list of arrays": list(PIXELS),
    "list of floats": tuple(FLOATS),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_the_same_pictures(form):
    assert np.array_equal(as_bytes(FORMS[form]), PIXELS)
    floats = as_floats(FORMS[form])
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, FLOATS, atol=1e-6)


def test_one_picture_is_a_batch_of_one():
    for one in (PIXELS[0], FLOATS[0], Image.fromarray(PIXELS[0]), [PIXELS[:1]]):
        assert np.array_equal(as_bytes(one, 1), PIXELS[:1])


def test_rounding_by_bfloat16_is_borne():
    found = as_bytes(FLOATS.astype(ml_dtypes.bfloat16))
    assert np.abs(found.astype(int) - PIXELS).max() <= 1


def test_pale_pictures_are_taken_as_bytes():
    """Floats that are never below 0 could be of 0 to 1; uint8 cannot."""
    pale = np.full((1, 4, 4, 3), 250, np.uint8)
    pale[0, 0] = 200
    assert as_floats(pale).min() > 0
    assert as_floats(np.ones((1, 4, 4, 3), np.float32)).max() == 1  # the same in both


@pytest.mark.parametrize(
    "odd",
    [
        None,
        [],
        "picture.png",
        np.zeros((0, 4, 4, 3), np.uint8),
        np.zeros((4, 4), np.uint8),  # grey
        np.zeros((2, 3, 8, 8), np.uint8),  # channels first
        np.zeros((2, 8, 8, 4), np.uint8),
        PIXELS.astype(np.int64),
        PIXELS.astype(np.float32),  # 0 to 255
        PIXELS / 255,  # 0 to 1
        np.zeros((1, 4, 4, 3), np.float32),  # grey, or black
        np.where(FLOATS > 0.9, np.nan, FLOATS),
        PIXELS > 100,
        [PIXELS[0], PIXELS[1][:3]],
        [PIXELS[0], FLOATS[1]],
        [PIXELS[0], None],
        Image.fromarray(np.full((4, 4), -1.0, np.float32)),
    ],
    ids=lambda odd: type(odd).__name__,
)
def test_what_is_no_picture_is_refused_by_name(odd):
    for call in (as_floats, as_bytes, check_pictures):
        with pytest.raises(BadInput, match="the_pictures"):
            call(odd, name="the_pictures")


def test_the_number_is_checked():
    with pytest.raises(BadInput, match="2 pictures"):
        as_floats(PIXELS, 1)
