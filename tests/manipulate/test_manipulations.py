"""unCLIP §3: what a manipulation must keep, on random networks."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.errors import BadInput
from dalle2_jax.manipulate.inpaint import (
    edits,
    image_to_image,
    inpaint,
    outpaint_canvas,
)
from dalle2_jax.manipulate.interpolate import interpolate, mix
from dalle2_jax.manipulate.latent import EXACT, condition_of, encode, see, to_size
from dalle2_jax.manipulate.text_diff import direction, text_diff
from dalle2_jax.manipulate.variations import reconstruct, variations
from dalle2_jax.unclip import Sampling, run_stage, sample_decoder, sample_keys


def left_half(images):
    known = np.zeros((*images.shape[:3], 1), bool)
    known[:, :, :8] = True
    return jnp.asarray(known)


def test_the_latent_gives_the_picture_back(model, images):
    def error(steps):
        how = dataclasses.replace(EXACT, steps=steps)
        latent = encode(model, images, how=how)
        condition = condition_of(model, latent.z_image)
        keys = sample_keys(0, 0, 2)

        def decode(*args, **static):
            return sample_decoder(*args, **static, x_T=latent.x_T)

        made = run_stage(decode, model.decoder, condition, keys, how)
        return float(jnp.abs(made - to_size(images, 8)).mean())

    coarse, fine = error("20"), error("200")
    assert fine < 0.02 and fine < coarse / 3  # DDIM inversion is exact in the limit


def test_without_eta_variations_are_the_reconstruction(model, images):
    again = variations(model, images[:1], 3, eta=0.0)
    upsampled = reconstruct(model, images[:1])
    np.testing.assert_allclose(again[0], upsampled[0], atol=1e-4)


def test_variations_differ_and_are_a_function_of_seed_and_index(model, images):
    four, two = (variations(model, images[:1], n, eta=1.0, seed=5) for n in (4, 2))
    np.testing.assert_allclose(four[:2], two, atol=2e-4)
    assert float(jnp.abs(four[0] - four[1]).max()) > 0.05


def test_the_ends_of_an_interpolation_reconstruct_its_pictures(model, images):
    row = interpolate(model, images, 5)
    assert row.shape == (5, 16, 16, 3)
    first = reconstruct(model, images[:1])
    np.testing.assert_allclose(row[0], first[0], atol=2e-3)
    fixed = interpolate(model, images, 2, noise="fixed")
    assert float(jnp.abs(fixed[0] - row[0]).max()) > 0.01


def test_a_mixture_with_one_weight_is_a_picture_of_that_z_i(model, images):
    one = mix(model, images, ["a red ring"], [1, 0, 0], count=2)
    alone = mix(model, images[:1], [], [1], count=2)
    np.testing.assert_allclose(one, alone, atol=2e-3)
    with pytest.raises(BadInput, match="nothing to mix"):
        mix(model, images[:0], [], [])


def test_a_text_diff_begins_at_the_reconstruction_and_moves_along_z_d(model, images):
    row = text_diff(model, images[:1], "a blue square", "a red ring", count=3)
    np.testing.assert_allclose(row[0], reconstruct(model, images[:1])[0], atol=2e-3)
    z_d = direction(model, "a blue square", "a red ring")
    assert abs(float(jnp.linalg.norm(z_d)) - 1) < 1e-5
    np.testing.assert_allclose(
        direction(model, "a red ring", "a blue square"), -z_d, atol=1e-5
    )
    with pytest.raises(BadInput, match="the same to CLIP"):
        text_diff(model, images[:1], "a red ring", "a red ring")


def test_known_pixels_come_out_as_they_went_in(model, images):
    known = left_half(images)
    made = inpaint(model, images, known, ["a red ring"] * 2)
    np.testing.assert_array_equal(made[:, :, :8], images[:, :, :8])
    assert float(jnp.abs(made - images)[:, :, 8:].max()) > 0.1
    with pytest.raises(BadInput, match="equally large"):
        inpaint(model, images, known[:, :8])
    with pytest.raises(BadInput, match="no white part"):
        inpaint(model, images, jnp.ones_like(known))


def test_edits_build_on_each_other(model, images):
    known = left_half(images[:1])
    first, second = edits(
        model, images[:1], [(known, "a red ring"), (~known, "a photo")]
    )
    np.testing.assert_array_equal(second[:, :, 8:], first[:, :, 8:])
    assert float(jnp.abs(second - first)[:, :, :8].max()) > 0.1


def test_the_canvas_of_outpainting_keeps_the_picture_in_its_middle(images):
    canvas, known = outpaint_canvas(jnp.asarray(images), 0.5)
    assert canvas.shape == images.shape and known.shape == (2, 16, 16, 1)
    assert bool(known[:, 5:11, 5:11].all()) and not bool(known[:, :3].any())
    with pytest.raises(BadInput, match="margin"):
        outpaint_canvas(jnp.asarray(images), 0.0)


def test_dynamic_thresholding_is_heard_where_a_picture_is_redrawn(model, images):
    alone, made = model._replace(upsampler=None), []
    for threshold in (0.0, 0.5):
        how = Sampling("3", clip=0.3, threshold=threshold)
        ways = {"decoder": how}
        made.append(image_to_image(alone, images, 1.0, ways=ways))
    assert float(jnp.abs(made[0] - made[1]).max()) > 1e-3


def test_image_to_image_keeps_the_more_the_weaker_it_is(model, images):
    alone, small = model._replace(upsampler=None), to_size(images, 8)

    def change(strength):
        return float(jnp.abs(image_to_image(alone, images, strength) - small).mean())

    assert change(0.25) < change(1.0) / 2
    with pytest.raises(BadInput, match="strength"):
        image_to_image(model, images, 0.0)


def test_a_model_without_clip_is_named(model, images):
    with pytest.raises(BadInput, match="the model holds no clip"):
        see(model._replace(clip=None), images)
