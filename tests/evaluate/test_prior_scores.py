"""Cosines of a prior to pictures and captions: known vectors."""

import numpy as np
import pytest

from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.prior_scores import mean_and_error, prior_scores


def test_cosines_of_known_vectors():
    z_text = np.eye(3)
    z_image = np.roll(np.eye(3), 1, 0) * 7  # lengths do not matter
    found = prior_scores(z_text * 2, z_image, z_text)
    assert found["to_caption"] == (1, 0)
    assert found["to_image"] == (0, 0) == found["data_to_caption"]
    assert found["to_unrelated"] == (0, 0)
    assert found["data_to_unrelated"][0] == pytest.approx(0.5)


def test_unrelated_means_every_other_caption_once():
    rng = np.random.default_rng(0)
    z_prior, z_image, z_text = rng.normal(size=(3, 5, 4))
    captions = ["a", "b", "a", "c", "d"]
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z_prior, z_text)]
    cosines = unit[0] @ unit[1].T
    expected = [
        np.mean([cosines[i, j] for j in range(5) if captions[j] != captions[i]])
        for i in range(5)
    ]
    found = prior_scores(z_prior, z_image, z_text, captions)["to_unrelated"]
    assert found[0] == pytest.approx(np.mean(expected))
    assert found == pytest.approx(mean_and_error(expected))


def test_one_caption_alone_has_no_unrelated_ones():
    with pytest.raises(BadInput, match="all captions are the same"):
        prior_scores(*np.ones((3, 2, 4)), captions=["a", "a"])


def test_standard_error_by_formula():
    mean, error = mean_and_error(np.array([1.0, 2.0, 3.0, 4.0]))
    assert mean == 2.5 and error == pytest.approx((5 / 3) ** 0.5 / 2)
    assert mean_and_error(np.array([3.0])) == (3, 0)
