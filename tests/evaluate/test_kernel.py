"""Kernel distances have known answers, and no bias in the number of samples."""

import numpy as np
import pytest

from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate import kernel
from dalle2_jax.evaluate.kernel import cmmd, cubic, kid, mmd2, rbf


def normal(n, d=8, seed=0, mean=0.0):
    return np.random.default_rng(seed).normal(mean, 1, (n, d))


def by_pairs(x, y):
    """The unbiased estimator, pair by pair, as it is defined."""
    k = [[cubic(a[None], b[None]).item() for b in (*x, *y)] for a in (*x, *y)]
    k, n, m = np.array(k), len(x), len(y)
    apart_x, apart_y = ~np.eye(n, dtype=bool), ~np.eye(m, dtype=bool)
    within = k[:n, :n][apart_x].mean() + k[n:, n:][apart_y].mean()
    return within - 2 * k[:n, n:].mean()


@pytest.mark.parametrize("rows", [1, 3, 1024])
def test_the_unbiased_estimator_in_blocks_of_any_size(rows, monkeypatch):
    monkeypatch.setattr(kernel, "ROWS", rows)
    x, y = normal(7), normal(5, seed=1, mean=0.5)
    assert mmd2(cubic, x, y) == pytest.approx(by_pairs(x, y), rel=1e-12)


def test_equal_distributions_are_near_zero_and_others_are_not():
    same, apart = normal(600, seed=1), normal(600, seed=2, mean=1.0)
    near, spread = kid(normal(600), same, subsets=20, size=200)
    assert abs(near) < 3 * spread / np.sqrt(20) + 0.05
    assert kid(normal(600), apart, subsets=5, size=200)[0] > 1
    assert mmd2(cubic, normal(50), normal(50), biased=True) == pytest.approx(0)


def test_the_mean_of_the_unbiased_estimator_is_zero_at_any_size():
    found = [
        mmd2(cubic, normal(10, 2, seed=i), normal(10, 2, seed=-i - 1 + 5000))
        for i in range(400)
    ]
    assert abs(np.mean(found)) < 4 * np.std(found) / 20


def test_subsets_are_those_of_the_seeded_legacy_generator():
    x, y = normal(30), normal(40, seed=1)
    rng = np.random.RandomState(7)
    draws = [
        (rng.choice(30, 12, replace=False), rng.choice(40, 12, replace=False))
        for _ in range(3)
    ]
    expected = [mmd2(cubic, x[a], y[b]) for a, b in draws]
    found = kid(x, y, subsets=3, size=12, seed=7)
    assert found == pytest.approx((np.mean(expected), np.std(expected)))


def test_the_gaussian_kernel_of_points_at_a_known_distance():
    x = np.array([[0.0, 0.0], [3.0, 4.0]])
    expected = np.exp(-25 / (2 * 5**2))
    np.testing.assert_allclose(rbf(5)(x, x), [[1, expected], [expected, 1]])


@pytest.mark.parametrize("size", [1, 31])
def test_a_subset_that_cannot_be_drawn_is_refused(size):
    with pytest.raises(BadInput, match="between 2 and 30"):
        kid(normal(30), normal(40), size=size)


def test_cmmd_of_the_same_set_is_zero_and_lengths_do_not_matter():
    x = np.random.default_rng(0).normal(size=(40, 6))
    y = np.random.default_rng(1).normal(1, 1, size=(50, 6))
    assert cmmd(x, 3 * x) == pytest.approx(0, abs=1e-9)
    assert cmmd(x, y) == pytest.approx(cmmd(7 * x, y / 2), rel=1e-9)
    assert cmmd(x, y) > 1


def test_cmmd_of_opposite_directions_is_known():
    x, y = np.array([[1.0, 0], [2, 0]]), np.array([[-1.0, 0], [-5, 0]])
    expected = 1000 * (2 - 2 * np.exp(-4 / (2 * 10**2)))
    assert cmmd(x, y) == pytest.approx(expected, rel=1e-12)


def test_an_embedding_without_a_direction_is_refused():
    with pytest.raises(BadInput, match="all zeros"):
        cmmd(np.ones((3, 2)), np.zeros((3, 2)))
