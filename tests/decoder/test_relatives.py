"""GLIDE and ADM as decoders without z_i, and all relatives as components."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.components import load_component, save_component
from dalle2_jax.config import plain
from dalle2_jax.decoder import classifier
from dalle2_jax.decoder.caption import CaptionConfig
from dalle2_jax.decoder.classifier import Classifier, ClassifierConfig
from dalle2_jax.decoder.decoder import (
    Condition,
    Decoder,
    DecoderConfig,
    example,
    for_inpainting,
    nothing,
    pictures,
)
from dalle2_jax.diffusion.schedule import Noise
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.init import init_params
from dalle2_jax.layers.unet import UNetConfig
from dalle2_jax.unclip import Sampling, sample_decoder

UNET = UNetConfig(8, (1, 2), 1, (2,), head_width=8, groups=4, out_channels=6)
TEXT = dataclasses.replace(UNET, context_width=8)
GLIDE = DecoderConfig(
    8, TEXT, 0, caption=CaptionConfig(20, 4, 8, 1, 2), pooled_text=True
)
GLIDE_UP = dataclasses.replace(GLIDE, low_res=4, round_low_res=True, inpaint=True)
ADM = DecoderConfig(8, dataclasses.replace(UNET, classes=5), 0)
ADM_UP = dataclasses.replace(ADM, low_res=4)
LABELS = ClassifierConfig(8, dataclasses.replace(UNET, out_channels=5))
NOISE = Noise("linear", learned_variance=True)
KEYS = jax.random.split(jax.random.key(0), 4)
X = jax.random.normal(KEYS[0], (2, 8, 8, 3))
T = jnp.array([5, 800])
COND = Condition(
    z_image=jnp.zeros((2, 0)),
    tokens=jnp.array([[1, 2, 3, 4], [5, 6, 0, 0]]),
    mask=jnp.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool),
    low_res=jax.random.uniform(KEYS[1], (2, 4, 4, 3), minval=-1),
    known=jax.random.normal(KEYS[2], (2, 8, 8, 3)),
    is_known=jnp.zeros((2, 8, 8, 1)).at[:, :4].set(1.0),
    label=jnp.array([1, 4]),
)


def speaking(cfg):
    """Parameters without a zero-initialised layer."""
    params = init_params(Decoder(cfg), 0, *example(cfg))
    return jax.tree.map(
        lambda a: a + 0.1 * np.cos(np.arange(a.size)).reshape(a.shape), params
    )


@functools.partial(jax.jit, static_argnums=0)
def output(cfg, params, cond):
    return Decoder(cfg).apply({"params": params}, X, T, cond)


def test_glide_hears_its_caption_its_low_res_and_known_pixels_only():
    params = speaking(GLIDE_UP)
    plain_output = output(GLIDE_UP, params, COND)
    assert plain_output.shape == (2, 8, 8, 6)
    other = COND._replace(tokens=COND.tokens[::-1])
    assert jnp.any(output(GLIDE_UP, params, other) != plain_output)
    other = COND._replace(low_res=-COND.low_res)
    assert jnp.any(output(GLIDE_UP, params, other) != plain_output)
    hidden = COND._replace(known=COND.known.at[:, 4:].add(1.0))
    np.testing.assert_array_equal(output(GLIDE_UP, params, hidden), plain_output)


def test_the_channels_beside_the_picture_are_in_glides_order():
    known, is_known, low = pictures(GLIDE_UP, X, COND)
    np.testing.assert_array_equal(known, COND.known * COND.is_known)
    np.testing.assert_array_equal(is_known, COND.is_known)
    assert low.shape == X.shape
    blind = pictures(GLIDE_UP, X, COND._replace(known=None, is_known=None))
    assert not np.any(blind[0]) and not np.any(blind[1])


def test_a_small_picture_is_rounded_to_bytes_before_it_is_enlarged():
    near = COND._replace(low_res=COND.low_res.at[:].set(100.4 / 127.5 - 1))
    low = pictures(GLIDE_UP, X, near)[-1]
    np.testing.assert_allclose((low + 1) * 127.5, 100, atol=1e-4)
    exact = dataclasses.replace(GLIDE_UP, round_low_res=False)
    low = pictures(exact, X, near)[-1]
    np.testing.assert_allclose((low + 1) * 127.5, 100.4, atol=1e-4)


def test_a_missing_small_picture_is_named():
    with pytest.raises(BadInput, match="low_res"):
        pictures(ADM_UP, X, COND._replace(low_res=None))


def test_adm_hears_its_label():
    params = speaking(ADM)
    moved = output(ADM, params, COND._replace(label=jnp.array([1, 0])))
    moved -= output(ADM, params, COND)
    assert jnp.all(moved[0] == 0) and jnp.any(moved[1] != 0)


def test_an_inpainting_model_starts_as_the_plain_one():
    cfg = dataclasses.replace(GLIDE_UP, inpaint=False)
    params = speaking(cfg)
    wide = for_inpainting(params, cfg)
    np.testing.assert_allclose(
        output(GLIDE_UP, wide, COND), output(cfg, params, COND), atol=1e-5
    )


def test_glide_is_sampled_with_guidance_by_the_decoders_own_sampler():
    how = Sampling(steps="3", guidance=3.0, clip=1.0)
    cond = COND._replace(keep_image=jnp.ones(2), keep_text=jnp.ones(2))
    params = speaking(GLIDE_UP)

    def image(cond):
        return sample_decoder(
            params, cond, KEYS[:2], cfg=GLIDE_UP, noise=NOISE, how=how
        )

    made = image(cond)
    assert made.shape == (2, 8, 8, 3) and jnp.all(jnp.abs(made) <= 1)
    assert jnp.any(made != image(nothing(cond)))


@pytest.mark.parametrize(
    ("stage", "cfg"),
    [
        ("glide", GLIDE),
        ("glide_upsampler", GLIDE_UP),
        ("adm", ADM),
        ("adm_upsampler", ADM_UP),
    ],
)
def test_relatives_are_components(tmp_path, stage, cfg):
    params = speaking(cfg)
    config = {"stage": stage, "model": plain(cfg), "noise": plain(NOISE)}
    save_component(tmp_path, stage, config, params)
    loaded = load_component(tmp_path, stage)
    assert (loaded.cfg, loaded.noise) == (cfg, NOISE)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)


def test_the_classifier_is_a_component(tmp_path):
    params = init_params(Classifier(LABELS), 0, *classifier.example(LABELS))
    save_component(tmp_path, "classifier", {"model": plain(LABELS)}, params)
    loaded = load_component(tmp_path, "classifier")
    assert loaded.cfg == LABELS
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
