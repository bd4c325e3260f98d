"""Time sinusoids and pixel folding."""

import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.layers.embeddings import depth_to_space, space_to_depth, time_sinusoid


def test_time_zero_is_ones_then_zeros():
    np.testing.assert_array_equal(time_sinusoid(jnp.zeros(1), 6)[0], [1, 1, 1, 0, 0, 0])


def test_first_frequency_is_1_and_periods_grow_to_10000():
    e = time_sinusoid(jnp.array([1]), 8)[0]
    np.testing.assert_allclose(
        e[4:], np.sin(10_000.0 ** (-np.arange(4) / 4)), rtol=1e-6
    )


def test_pythagoras_at_any_time():
    e = time_sinusoid(jnp.arange(0, 1000, 37), 32)
    np.testing.assert_allclose(e[:, :16] ** 2 + e[:, 16:] ** 2, 1, atol=1e-6)


def test_folding_pixels_and_back():
    image = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
    folded = space_to_depth(image, 2)
    assert folded.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(folded[0, 1, 2, :3], image[0, 2, 4])
    np.testing.assert_array_equal(depth_to_space(folded, 2), image)
