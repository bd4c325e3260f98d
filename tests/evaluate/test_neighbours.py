"""Precision, recall, density and coverage on sets whose answer can be counted."""

import numpy as np
import pytest

from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate import neighbours
from dalle2_jax.evaluate.neighbours import density_coverage, precision_recall, radii

LINE = np.arange(10.0)[:, None]  # k-th neighbours of inner points: 1, 1, 2, 2, ...


def test_identical_sets():
    x = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    assert precision_recall(x, x.copy()) == (1, 1)
    assert density_coverage(x, x.copy())[1] == 1


def test_sets_far_apart():
    assert precision_recall(LINE, LINE + 100) == (0, 0)
    assert density_coverage(LINE, LINE + 100) == (0, 0)


def test_many_copies_of_one_sample_are_the_same_point():
    x = np.repeat(np.random.default_rng(0).normal(3, 1, size=(5, 64)), 8, axis=0)
    assert precision_recall(x, x[::-1]) == (1, 1)
    assert radii(x, 3).max() == 0


def test_radii_and_shares_on_a_line():
    np.testing.assert_allclose(radii(LINE, 2), [4, 1, 1, 1, 1, 1, 1, 1, 1, 4])
    fake = np.array([[2.0], [2.1], [-2.0], [-2.1]])
    precision, recall = precision_recall(LINE, fake, k=2)
    assert precision == 3 / 4  # -2 is on the rim of the ball of 0, -2.1 is outside
    assert recall == pytest.approx(7 / 10)  # 2.1 reaches 4.1 to -2, that is to 6.2


def test_density_and_coverage_on_a_line():
    fake = np.array([[4.5], [30.0], [40.0]])
    density, coverage = density_coverage(LINE, fake, k=2)
    assert density == pytest.approx(2 / (2 * 3))  # in the balls of 4 and 5
    assert coverage == 2 / 10


def test_blocks_of_any_size_give_the_same(monkeypatch):
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(90, 5)), rng.normal(0.5, 1, size=(70, 5))
    whole = precision_recall(real, fake), density_coverage(real, fake)
    monkeypatch.setattr(neighbours, "ENTRIES", 200)
    assert (precision_recall(real, fake), density_coverage(real, fake)) == whole


@pytest.mark.parametrize("k", [0, 10])
def test_neighbours_that_do_not_exist_are_refused(k):
    with pytest.raises(BadInput, match="between 1 and 9"):
        precision_recall(LINE, LINE, k=k)
