"""Retrieval on embeddings whose neighbours are known."""

import numpy as np
import pytest

from dalle2_jax.evaluate.retrieval import r_precision, retrieval


def test_recall_of_a_known_order():
    z_text = np.eye(4)
    z_image = np.eye(4)[[0, 1, 3, 2]] * 0.9 + np.eye(4) * 0.1  # two of four swapped
    found = retrieval(z_image, z_text, ranks=(1, 2))
    assert found["image_to_text"] == {1: 0.5, 2: 1.0} == found["text_to_image"]


def test_embeddings_that_tell_nothing_apart_find_nothing():
    same = np.ones((12, 3)) / 3**0.5
    assert retrieval(same, same)["image_to_text"] == {1: 0, 5: 0, 10: 0}
    assert r_precision(same, same) == (0, 11)


def test_all_pictures_of_one_caption_are_right():
    z_text = np.eye(3)[[0, 0, 1, 2]]
    z_image = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, 1, 0], [0, 0, 1]])
    found = retrieval(z_image, z_text, ["a", "a", "b", "c"], ranks=(1,))
    assert found["image_to_text"][1] == 0.75  # the second picture finds "b"
    assert found["text_to_image"][1] == 1  # three captions, each finds a picture


def test_r_precision_counts_pictures_that_beat_every_distractor():
    z = np.eye(8)
    pictures = z.copy()
    pictures[:2] = z[[1, 0]]
    assert r_precision(z, z, distractors=5) == (1, 5)
    assert r_precision(pictures, z, distractors=7) == (0.75, 7)
    few = r_precision(pictures, z, distractors=1, seed=0)
    assert few == r_precision(pictures, z, distractors=1, seed=0)
    assert few[0] >= 0.75


def test_chance_is_one_among_the_distractors():
    rng = np.random.default_rng(0)
    z, other = rng.normal(size=(2, 600, 16))
    share, used = r_precision(z, other, distractors=3, seed=1)
    assert used == 3 and share == pytest.approx(0.25, abs=0.06)
