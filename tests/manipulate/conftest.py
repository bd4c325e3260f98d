"""Pictures for the manipulations."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def images():
    """Two smooth pictures, float32 [2, 16, 16, 3] in [-1, 1]."""
    y, x = np.mgrid[-1:1:16j, -1:1:16j].astype("f")
    one = np.stack([x, y, x * y], -1)
    return np.stack([one, -one[::-1]])
