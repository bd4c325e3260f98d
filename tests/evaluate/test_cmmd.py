"""CMMD: of directions only, 0 for the same set, and in the published unit."""

import numpy as np
import pytest

from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.cmmd import cmmd


def test_the_same_set_is_at_zero_and_lengths_do_not_matter():
    x = np.random.default_rng(0).normal(size=(40, 6))
    y = np.random.default_rng(1).normal(1, 1, size=(50, 6))
    assert cmmd(x, 3 * x) == pytest.approx(0, abs=1e-9)
    assert cmmd(x, y) == pytest.approx(cmmd(7 * x, y / 2), rel=1e-9)
    assert cmmd(x, y) > 1


def test_opposite_directions_have_a_known_distance():
    x, y = np.array([[1.0, 0], [2, 0]]), np.array([[-1.0, 0], [-5, 0]])
    expected = 1000 * (2 - 2 * np.exp(-4 / (2 * 10**2)))
    assert cmmd(x, y) == pytest.approx(expected, rel=1e-12)


def test_an_embedding_without_a_direction_is_refused():
    with pytest.raises(BadInput, match="all zeros"):
        cmmd(np.ones((3, 2)), np.zeros((3, 2)))
