"""The Fréchet distance has known answers."""

import functools

import numpy as np
import pytest

from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.frechet import (
    Moments,
    feature_pair,
    frechet_distance,
    merge,
    moments,
)


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


@pytest.mark.parametrize("n", [40, 400])  # fewer and more samples than features
def test_parts_of_any_size_and_order_give_the_same_distance(n):
    rng = np.random.default_rng(2)
    shape = rng.normal(size=(96, 96)) * np.geomspace(1, 1e-3, 96)
    x, y = (
        (3 + rng.normal(size=(n, 96)) @ shape + shift).astype(np.float32)
        for shift in (0, 0.1)
    )
    whole = frechet_distance(moments(x), moments(y))
    for size in (7, 64):
        parts = [moments(x[i : i + size]) for i in range(0, n, size)]
        found = frechet_distance(functools.reduce(merge, parts), moments(y))
        assert found == pytest.approx(whole, rel=1e-11)
    mixed = frechet_distance(moments(rng.permutation(x)), moments(y[::-1]))
    assert mixed == pytest.approx(whole, rel=1e-11)
    assert frechet_distance(moments(y), moments(x)) == pytest.approx(whole, rel=1e-11)


def test_few_samples_agree_with_the_nuclear_norm_of_their_products():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(20, 200)), rng.normal(0.3, 2, size=(30, 200))
    a, b = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y))
    cross = np.linalg.norm(a @ b.T, "nuc")
    apart = ((x.mean(0) - y.mean(0)) ** 2).sum()
    expected = apart + (a**2).sum() + (b**2).sum() - 2 * cross
    found = frechet_distance(moments(x), moments(y))
    assert found == pytest.approx(expected, rel=1e-13)


def test_sets_without_spread_have_their_means():
    x = np.ones((5, 3))
    assert frechet_distance(moments(x), moments(x + 1)) == pytest.approx(3)
    y = np.random.default_rng(0).normal(size=(9, 3))
    assert np.isfinite(frechet_distance(moments(x), moments(y)))


@pytest.mark.parametrize(
    ("features", "problem"),
    [
        (np.zeros((1, 3)), "at least 2"),
        (np.zeros(4), "must be"),
        (np.array([[1.0], [np.nan], [np.inf]]), "sample 1 .one of 2. are not finite"),
    ],
)
def test_features_are_checked(features, problem):
    with pytest.raises(BadInput, match=problem):
        feature_pair(np.zeros((5, 3)), features)


@pytest.mark.parametrize("n", [40, 3000])
def test_covariances_kept_in_half_the_digits_move_a_distance_little(n):
    rng, spread = np.random.default_rng(0), np.geomspace(1, 1e-3, 64)
    parts = [moments(rng.normal(size=(n, 64)) * spread + shift) for shift in (0, 0.1)]
    short = [
        part._replace(m2=np.float64(np.float32(part.covariance)) * (n - 1))
        for part in parts
    ]
    near = frechet_distance(*short)
    assert near == pytest.approx(frechet_distance(*parts), rel=1e-4)
    assert frechet_distance(short[0], short[0]) == pytest.approx(0, abs=1e-4)


def test_a_mean_that_is_not_finite_is_refused():
    found = moments(np.random.default_rng(0).normal(size=(9, 2)))
    broken = found._replace(mean=np.array([0, np.nan]))
    with pytest.raises(BadInput, match="not finite"):
        frechet_distance(broken, found)


def test_what_cannot_be_compared_is_refused():
    x = np.zeros((5, 3))
    with pytest.raises(BadInput, match="at least 2"):
        frechet_distance(moments(x[:1]), moments(x))
    with pytest.raises(BadInput, match="different sizes"):
        frechet_distance(moments(x), moments(np.zeros((5, 4))))
    with pytest.raises(BadInput, match="different sizes"):
        feature_pair(x, np.zeros((5, 4)))
    with pytest.raises(BadInput, match="not finite"):
        frechet_distance(moments(x), moments(x * np.nan))
