"""Blur and crops of an upsampler's training images."""

import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.decoder.degrade import blur, crops

IMAGE = jax.random.normal(jax.random.key(0), (3, 32, 32, 2))


def test_blur_keeps_a_plain_image():
    np.testing.assert_allclose(blur(jnp.full((1, 5, 6, 3), 0.7)), 0.7, rtol=1e-6)


def test_blur_of_a_dot_is_the_gaussian_kernel():
    dot = jnp.zeros((1, 5, 5, 1)).at[0, 2, 2, 0].set(1.0)
    offsets = np.arange(-1, 2)
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 0.6**2))
    expected = np.zeros((5, 5))
    expected[1:4, 1:4] = kernel / kernel.sum()
    np.testing.assert_allclose(blur(dot)[0, :, :, 0], expected, atol=1e-6)


def test_blur_reflects_at_the_border():
    wide = jnp.pad(IMAGE, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    np.testing.assert_allclose(blur(wide)[:, 1:-1, 1:-1], blur(IMAGE), atol=1e-6)


def test_crops_of_high_and_low_show_the_same_place():
    low = IMAGE.reshape(3, 8, 4, 8, 4, 2).mean((2, 4))
    for seed in range(5):
        key = jax.random.key(seed)
        high = crops(key, IMAGE, 0.25, factor=4)
        assert high.shape == (3, 8, 8, 2)
        np.testing.assert_allclose(
            high.reshape(3, 2, 4, 2, 4, 2).mean((2, 4)),
            crops(key, low, 0.25),
            atol=1e-6,
        )


def test_crops_differ_between_samples_and_reach_every_place():
    places = jnp.broadcast_to(jnp.arange(8.0)[:, None, None], (400, 8, 8, 1))
    corners = crops(jax.random.key(0), places, 0.5)[:, 0, 0, 0]
    assert set(np.asarray(corners)) == {0, 1, 2, 3, 4}


def test_a_crop_depends_on_its_own_key_alone():
    keys = jax.random.split(jax.random.key(1), 3)
    np.testing.assert_array_equal(
        crops(keys, IMAGE, 0.5)[1:], crops(keys[1:], IMAGE[1:], 0.5)
    )


def test_a_whole_crop_is_the_image():
    np.testing.assert_array_equal(crops(jax.random.key(0), IMAGE, 1.0, 4), IMAGE)
