"""A small random model, and pictures."""

import numpy as np
import pytest
from small_model import save_small_model

from dalle2_jax.unclip import load


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def model(folder):
    return load(folder)


@pytest.fixture(scope="session")
def images():
    """Two smooth pictures, float32 [2, 16, 16, 3] in [-1, 1]."""
    y, x = np.mgrid[-1:1:16j, -1:1:16j].astype("f")
    one = np.stack([x, y, x * y], -1)
    return np.stack([one, -one[::-1]])
