"""Slerp keeps lengths and ends, in closed form."""

import jax
import numpy as np
import pytest

from dalle2_jax.errors import BadInput
from dalle2_jax.manipulate.geometry import mean_direction, slerp, slerp_noise


def test_slerp_turns_by_the_share_of_the_angle():
    a, b = np.float32([1, 0, 0]), np.float32([0, 1, 0])
    for theta in (0.0, 0.25, 0.5, 1.0):
        angle = theta * np.pi / 2
        expected = [np.cos(angle), np.sin(angle), 0]
        np.testing.assert_allclose(slerp(a, b, theta), expected, atol=1e-6)


def test_slerp_of_unit_vectors_has_norm_one_and_reaches_both_ends():
    a, b = jax.random.normal(jax.random.key(0), (2, 5, 32))
    a, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    theta = np.linspace(0, 1, 5, dtype="f")[:, None]
    np.testing.assert_allclose(np.linalg.norm(slerp(a, b, theta), axis=-1), 1, 1e-5)
    np.testing.assert_allclose(slerp(a, b, 0.0), a, atol=1e-6)
    np.testing.assert_allclose(slerp(a, b, 1.0), b, atol=1e-6)


def test_slerp_of_a_vector_with_itself_is_that_vector():
    a = np.float32([0.6, 0.8])
    np.testing.assert_allclose(slerp(a, a, 0.3), a, atol=1e-6)


def test_slerp_of_noise_keeps_its_variance_where_a_straight_line_would_not():
    a, b = jax.random.normal(jax.random.key(1), (2, 1, 64, 64, 3))
    half = slerp_noise(a, b, np.float32([0.5]))
    assert abs(float(half.var()) - 1) < 0.05
    assert float(((a + b) / 2).var()) < 0.6


def test_weights_choose_and_may_not_cancel_out():
    z = np.eye(3, dtype="f")[:2]
    np.testing.assert_allclose(mean_direction(z, [1, 0]), z[0], atol=1e-6)
    np.testing.assert_allclose(mean_direction(z, [1, 1]), [0.5**0.5] * 2 + [0], 1e-6)
    with pytest.raises(BadInput, match="as many weights, not 3"):
        mean_direction(z, [1, 2, 3])
    with pytest.raises(BadInput, match="cancel out"):
        mean_direction(np.stack([z[0], -z[0]]), [1, 1])
