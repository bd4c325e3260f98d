"""The image tower and its view of an image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.clip.image import ImageTower, ImageTowerConfig, preprocess
from dalle2_jax.layers.init import init_params

CFG = ImageTowerConfig(16, 4, 16, 1, 2)


def test_a_plain_image_stays_plain_at_any_size():
    colours = jnp.array([-1.0, 0.0, 1.0])
    image = jnp.broadcast_to(colours, (2, 40, 24, 3))
    expected = ((np.array(colours) + 1) / 2 - CFG.mean) / CFG.std
    seen = preprocess(CFG, image)
    assert seen.shape == (2, 16, 16, 3)
    np.testing.assert_allclose(seen, np.broadcast_to(expected, seen.shape), atol=1e-5)


def test_an_image_of_the_right_size_is_not_resampled():
    image = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3), minval=-1)
    back = preprocess(CFG, image) * np.array(CFG.std) + np.array(CFG.mean)
    np.testing.assert_allclose(2 * back - 1, image, atol=1e-6)


@pytest.mark.parametrize("stem", ["patch", "conv"])
@pytest.mark.parametrize("head", ["class", "tokens"])
def test_stems_and_heads_give_one_vector_each_and_hear_the_corner(stem, head):
    cfg = ImageTowerConfig(16, 4, 16, 1, 2, stem=stem, head=head)
    tower = ImageTower(cfg, 8)
    image = jnp.zeros((1, 16, 16, 3))
    params = init_params(tower, 0, image)
    features, pull = jax.jit(
        jax.value_and_grad(lambda x: tower.apply({"params": params}, x).pooled.sum())
    )(image)
    tokens = 16 + (head == "class")
    assert tower.apply({"params": params}, image).states.shape == (1, tokens, 16)
    assert features.shape == ()
    assert jnp.any(pull[0, 0, 0] != 0) and jnp.any(pull[0, -1, -1] != 0)


def test_a_conv_stem_needs_a_power_of_two():
    with pytest.raises(AssertionError, match="2, 4, 8"):
        ImageTowerConfig(18, 6, 16, 1, 2, stem="conv")
