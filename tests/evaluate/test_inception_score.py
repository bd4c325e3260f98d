"""The Inception Score lies between 1 and the number of classes, and reaches both."""

import numpy as np
import pytest

from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.inception_score import inception_score


def test_one_class_for_all_is_1():
    logits = np.tile([50.0, 0, 0, 0], (40, 1))
    assert inception_score(logits, splits=4) == pytest.approx((1, 0))


def test_certain_and_even_is_the_number_of_classes():
    logits = 60 * np.eye(5)[np.arange(100) % 5]
    assert inception_score(logits, splits=1) == pytest.approx((5, 0), rel=1e-9)


def test_bounds_and_shuffle():
    logits = np.random.default_rng(0).normal(0, 3, (103, 7))
    mean, spread = inception_score(logits)
    assert 1 < mean < 7
    assert spread > 0
    assert inception_score(logits, seed=1)[0] != mean
    whole, nothing = inception_score(logits, splits=1)
    assert nothing == 0
    assert inception_score(logits[::-1], splits=1)[0] == pytest.approx(whole, rel=1e-12)


def test_more_splits_than_samples_are_refused():
    with pytest.raises(BadInput, match="3 splits"):
        inception_score(np.zeros((2, 4)), splits=3)
