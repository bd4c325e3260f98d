"""What Python hands to the public functions: taken for what it is, or refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from small_model import CAPTIONS

from dalle2_jax.batching import Fit
from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.clip_score import image_features, rerank
from dalle2_jax.evaluate.features import clip_extractor, extract
from dalle2_jax.manipulate.inpaint import edits, image_to_image, inpaint
from dalle2_jax.manipulate.interpolate import interpolate, mix
from dalle2_jax.manipulate.latent import encode, see
from dalle2_jax.manipulate.text_diff import text_diff
from dalle2_jax.manipulate.variations import reconstruct, variations
from dalle2_jax.unclip import (
    Request,
    Sampling,
    generate,
    imagined,
    sample_keys,
    upsample,
)

HOW = Sampling(steps="2", sampler="ddim", eta=0.0)
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
FLOATS = PIXELS.astype(np.float32) / 127.5 - 1
PILS = [Image.fromarray(one) for one in PIXELS]
SHARES = PIXELS / 255  # what nobody here means by a picture


def test_one_string_is_one_caption(model):
    one = model.generate("a red ring", seed=3, batch=4)
    assert one.shape == (1, 16, 16, 3)
    assert np.array_equal(one, model.generate(["a red ring"], seed=3, batch=4))
    z = imagined(model, "a red ring", 3, 4)
    np.testing.assert_allclose(z, imagined(model, ["a red ring"], 3, 4))
    both = [Request("a ring", decoder_captions=d) for d in ("two", ["two"])]
    one, other = (np.concatenate(list(generate(model, r, 3, 4))) for r in both)
    assert np.array_equal(one, other)


def test_what_is_drawn_can_be_handed_on(model):
    """The natural chain: `generate` returns uint8, `variations` sees the same."""
    drawn = model.generate(["a red ring"], seed=3, batch=4)
    floats = drawn.astype(np.float32) / 127.5 - 1
    z = [see(model, image) for image in (drawn, floats, Image.fromarray(drawn[0]))]
    np.testing.assert_allclose(z[0], z[1], atol=1e-6)
    np.testing.assert_array_equal(z[0], z[2])
    one, other = (variations(model, image, 1, how=HOW) for image in (drawn, floats))
    np.testing.assert_allclose(one, other, atol=1e-4)


KNOWN = np.zeros((16, 16), bool)
KNOWN[:, :8] = True
DOORS = {  # public functions that take pictures: (model, pictures of one) -> result
    "see": see,
    "encode": lambda model, image: encode(model, image, how=HOW),
    "reconstruct": lambda model, image: reconstruct(model, image, HOW),
    "variations": lambda model, image: variations(model, image, 1, how=HOW),
    "interpolate": lambda model, image: interpolate(model, [image[0]] * 2, 2, how=HOW),
    "mix": lambda model, image: mix(model, image, [], [1.0], how=HOW),
    "text_diff": lambda model, image: text_diff(
        model, image, "a ring", "two", count=2, how=HOW
    ),
    "inpaint": lambda model, image: inpaint(model, image, KNOWN, resample=1),
    "image_to_image": lambda model, image: image_to_image(model, image, 0.5),
    "upsample": lambda model, image: upsample(model, image, sample_keys(0, 0, 1), {}),
    "image_features": lambda model, image: image_features(model.clip, image),
    "clip_extractor": lambda model, image: clip_extractor(model.clip).function(image)[
        "pool"
    ],
    "rerank": lambda model, image: rerank(model, image, ["two"], 1, 1)[1],
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_takes_bytes_floats_and_pil_alike(door, model):
    call = DOORS[door]
    forms = PIXELS[:1], FLOATS[:1], PILS[:1]
    results = [jax.tree.leaves(call(model, image)) for image in forms]
    for found in results[1:]:
        for one, other in zip(found, results[0], strict=True):
            np.testing.assert_allclose(one, other, atol=2e-3)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("odd", [SHARES[:1], PIXELS[:1] * 1.0, [None], PIXELS[..., 0]])
def test_every_door_refuses_what_is_no_picture(door, odd, model):
    with pytest.raises(BadInput):
        DOORS[door](model, odd)


def test_features_of_many_are_those_of_the_same_bytes(model):
    network = clip_extractor(model.clip)
    rows = [extract(network.function, x)["pool"] for x in (PIXELS, FLOATS)]
    np.testing.assert_allclose(*rows, atol=1e-5)


def test_one_mask_of_two_dimensions_serves_all(model):
    many = inpaint(model, PIXELS, KNOWN, resample=1)
    full = jnp.broadcast_to(KNOWN[None, ..., None], (2, 16, 16, 1))
    np.testing.assert_array_equal(many, inpaint(model, PIXELS, full, resample=1))
    np.testing.assert_allclose(np.asarray(many)[:, KNOWN], FLOATS[:, KNOWN], atol=1e-6)


def test_edits_of_pale_pictures_go_on(model):
    """What is made is floats, and may never be below 0; it is not taken for shares."""
    pale = np.full((1, 16, 16, 3), 250, np.uint8)
    pale[0, 0] = 200
    known = np.ones((16, 16), bool)
    known[3, 3] = False
    assert len(list(edits(model, pale, [(known, None)] * 2, resample=1))) == 2


WRONG = {
    "no captions": lambda model: model.generate([]),
    "None": lambda model: model.generate(None),
    "numbers": lambda model: model.generate([1, 2]),
    "bytes": lambda model: model.generate(b"a ring"),
    "batch 0": lambda model: model.generate(["two"], batch=0),
    "batch of a half": lambda model: model.generate(["two"], batch=0.5),
    "batch None": lambda model: model.generate(["two"], batch=None),
    "seed": lambda model: model.generate(["two"], seed=-1),
    "seed of a word": lambda model: model.generate(["two"], seed="0"),
    "stage": lambda model: model.generate(["two"], how={"decodr": HOW}),
    "sampling": lambda model: model.generate(["two"], how={"decoder": "50"}),
    "samplings": lambda model: model.generate(["two"], how=HOW),
    "route": lambda model: list(generate(model, ["two"], route="elsewhere")),
    "z_i": lambda model: list(
        generate(model, ["two"], route="image", z_image=np.zeros((1, 3)))
    ),
    "labels": lambda model: list(generate(model, Request(["two"], labels=[0, 1]))),
    "decoder captions": lambda model: list(generate(model, Request(["a"], ["b", "c"]))),
    "count": lambda model: variations(model, PIXELS[:1], 0),
    "two for one": lambda model: variations(model, PIXELS, 1),
    "how": lambda model: variations(model, PIXELS[:1], 1, how={"decoder": HOW}),
    "ways": lambda model: variations(
        model, PIXELS[:1], 1, how=HOW, ways={"upsamplr": HOW}
    ),
    "three between": lambda model: interpolate(model, [*PIXELS, PIXELS[0]], 2),
    "nothing to mix": lambda model: mix(model, None, None, []),
    "mask of numbers": lambda model: inpaint(model, PIXELS[:1], KNOWN * 1),
    "mask None": lambda model: inpaint(model, PIXELS[:1], None),
    "mask of three": lambda model: inpaint(model, PIXELS[:1], np.stack([KNOWN] * 3)),
    "small mask": lambda model: inpaint(model, PIXELS[:1], KNOWN[:8]),
    "resample": lambda model: inpaint(model, PIXELS[:1], KNOWN, resample=0),
    "captions of inpaint": lambda model: inpaint(model, PIXELS, KNOWN, ["one"]),
    "strength": lambda model: image_to_image(model, PIXELS[:1], np.nan),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_values_are_one_sentence_before_anything_is_drawn(wrong, model):
    with pytest.raises(BadInput) as error:
        WRONG[wrong](model)
    assert "\n" not in str(error.value)


def test_arguments_are_looked_at_when_they_are_given(model):
    """`generate` yields later, and refuses now."""
    with pytest.raises(BadInput, match="batch"):
        generate(model, CAPTIONS, batch=-1)
    assert callable(generate(model, CAPTIONS, batch=Fit()).__next__)
