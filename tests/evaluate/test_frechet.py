"""The Fréchet distance has known answers."""

import numpy as np
import pytest

from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.frechet import Moments, frechet_distance, merge, moments


def gaussian(mean, variance):
    n = 10
    return Moments(
        n, np.array(mean, float), np.diag(np.array(variance, float)) * (n - 1)
    )


def test_known_gaussians():
    a, b = gaussian([0, 0], [1, 4]), gaussian([3, 4], [9, 4])
    assert frechet_distance(a, b) == pytest.approx(25 + (1 - 3) ** 2)


def test_a_set_has_no_distance_from_itself_and_its_shift_squared_from_a_shift():
    x = np.random.default_rng(0).normal(size=(500, 8))
    assert frechet_distance(moments(x), moments(x)) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(moments(x), moments(x + 2)) == pytest.approx(32, rel=1e-9)


def test_merging_parts_gives_the_moments_of_the_whole():
    x = np.random.default_rng(1).normal(5, 0.1, size=(301, 6))
    whole, parts = (
        moments(x),
        merge(merge(moments(x[:7]), moments(x[7:200])), moments(x[200:])),
    )
    assert whole.count == parts.count
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(parts.m2, whole.m2, rtol=1e-9, atol=1e-12)


def test_what_cannot_be_compared_is_refused():
    x = np.zeros((5, 3))
    with pytest.raises(BadInput, match="at least 2"):
        frechet_distance(moments(x[:1]), moments(x))
    with pytest.raises(BadInput, match="different sizes"):
        frechet_distance(moments(x), moments(np.zeros((5, 4))))
