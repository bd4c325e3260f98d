"""Probes find what is linearly there, and only that; what is asked of a world."""

import numpy as np
import pytest

from dalle2_jax.evaluate import linear_probe
from dalle2_jax.evaluate.linear_probe import probe_accuracy, probe_world

PAIR = {"relation", "first shape", "first colour", "second shape", "second colour"}


def test_a_probe_finds_what_is_there_and_not_what_is_not():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 6))
    labels = {
        "sign": np.where(x[:, 0] + x[:, 1] > 0, "up", "down"),
        "coin": rng.choice(["a", "b"], size=900),
    }
    test = {k: v[600:] for k, v in labels.items()}
    fit = {k: v[:600] for k, v in labels.items()}
    found = probe_accuracy(x[:600], fit, {"new": (x[600:], test)})
    assert found["sign"]["new"] > 0.95
    assert 0.35 < found["coin"]["new"] < 0.65


@pytest.fixture
def pixels(monkeypatch):
    """An "embedding" of 8 x 8 pixels: how far each is from the background."""

    def shrink(clip, images):
        small = images.reshape(len(images), 8, 8, 8, 8, 3).mean((2, 4))
        far = np.abs(small - small[:, :1, :1]) / 255
        return far.reshape(len(images), -1)

    monkeypatch.setattr(linear_probe, "image_features", shrink)


def test_single_objects(pixels):
    found = probe_world(None, "simple", 600, 100)
    assert set(found) == set(linear_probe.ATTRIBUTES)
    assert found["place"]["held_out"] > 0.9 > found["shape"]["held_out"]


def test_pairs_are_probed_object_by_object(pixels):
    found = probe_world(None, "pairs", 600, 100)
    assert set(found) == PAIR
    assert found["relation"]["seen"] > 0.8


def test_worlds_of_many_objects_are_not_probed(pixels):
    assert probe_world(None, "full", 20, 5) == {}
