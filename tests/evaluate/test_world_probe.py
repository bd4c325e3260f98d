"""Probes of the generated worlds: what is asked, and that pixels can answer it."""

import numpy as np
import pytest

from dalle2_jax.evaluate import world_probe
from dalle2_jax.evaluate.world_probe import probe_world

PAIR = {"relation", "first shape", "first colour", "second shape", "second colour"}


@pytest.fixture(autouse=True)
def pixels(monkeypatch):
    """An "embedding" of 8 x 8 pixels: how far each is from the background."""

    def shrink(clip, images):
        small = images.reshape(len(images), 8, 8, 8, 8, 3).mean((2, 4))
        far = np.abs(small - small[:, :1, :1]) / 255
        return far.reshape(len(images), -1)

    monkeypatch.setattr(world_probe, "image_features", shrink)


def test_single_objects():
    found = probe_world(None, "simple", 600, 100)
    assert set(found) == set(world_probe.ATTRIBUTES)
    assert found["place"]["held_out"] > 0.9 > found["shape"]["held_out"]


def test_pairs_are_probed_object_by_object():
    found = probe_world(None, "pairs", 600, 100)
    assert set(found) == PAIR
    assert found["relation"]["seen"] > 0.8


def test_worlds_of_many_objects_are_not_probed():
    assert probe_world(None, "full", 20, 5) == {}
