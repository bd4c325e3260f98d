"""The noised CLIP: it hears the step, and its gradient climbs its own logit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.clip.image import ImageTowerConfig
from dalle2_jax.clip.noised import (
    NoisedClip,
    NoisedClipConfig,
    caption_gradient,
    example,
)
from dalle2_jax.clip.text import TextTowerConfig
from dalle2_jax.components import load_component, save_component
from dalle2_jax.config import plain
from dalle2_jax.diffusion.schedule import Noise
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.embeddings import normalised
from dalle2_jax.layers.init import init_params

IMAGE = ImageTowerConfig(8, 4, 16, 1, 2, activation="gelu")
CFG = NoisedClipConfig(8, IMAGE, TextTowerConfig(20, 6, 16, 1, 2), times=10)
X_T = jax.random.normal(jax.random.key(1), (3, 8, 8, 3))
T = jnp.array([0, 4, 9])


@pytest.fixture(scope="module")
def params():
    return init_params(NoisedClip(CFG), 0, *example(CFG))


def embed(params, x_t, t=T):
    encode = functools.partial(NoisedClip(CFG).apply, method="encode_image")
    return normalised(jax.jit(encode)({"params": params}, x_t, t))


def test_the_same_picture_at_another_step_is_another_vector(params):
    apart = jnp.abs(embed(params, X_T) - embed(params, X_T, jnp.array([0, 5, 9])))
    np.testing.assert_array_equal(apart.max(-1) > 1e-6, [False, True, False])


def test_a_step_along_the_gradient_raises_each_logit_alone(params):
    z_text = normalised(jax.random.normal(jax.random.key(2), (3, 8)))
    gradient = jax.jit(caption_gradient(CFG, params, z_text))(X_T, T)
    before = jnp.sum(embed(params, X_T) * z_text, -1)
    step = 1e-4 * gradient
    gain = jnp.sum(embed(params, X_T + step) * z_text, -1) - before
    expected = 1e-4 * jnp.sum(gradient**2, (1, 2, 3)) / CFG.scale
    np.testing.assert_allclose(gain, expected, rtol=0.1, atol=1e-6)
    strengths = jnp.array([0.0, 1.0, 2.0])
    scaled = jax.jit(caption_gradient(CFG, params, z_text, strengths))(X_T, T)
    expected = strengths[:, None, None, None] * gradient
    np.testing.assert_allclose(scaled, expected, rtol=1e-4, atol=1e-5)


def test_lengths_say_where_a_caption_ends(params):
    tokens = jnp.array([[3, 5, 19, 0, 0, 0], [3, 19, 0, 0, 0, 0]])
    model, given = NoisedClip(CFG), {"params": params}
    told = model.apply(given, tokens, jnp.array([3, 2]), method="encode_text")
    found = model.apply(given, tokens, method="encode_text")
    np.testing.assert_array_equal(told, found)


def test_a_model_directory_holds_it(params, tmp_path):
    config = {"stage": "noised_clip", "model": plain(CFG), "noise": plain(Noise())}
    save_component(tmp_path, "noised_clip", config, params)
    assert load_component(tmp_path, "noised_clip").cfg == CFG


def test_pictures_of_another_size_are_refused(params):
    with pytest.raises(BadInput, match="these pictures are 16 x 16"):
        embed(params, jnp.zeros((3, 16, 16, 3)))
