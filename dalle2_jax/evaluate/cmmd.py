"""CMMD: the discrepancy of CLIP embeddings of pictures (Jayasumana et al. 2024)."""

import numpy as np

from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.frechet import feature_pair
from dalle2_jax.evaluate.kernel import mmd2, rbf


def cmmd(x, y, sigma=10.0, scale=1000.0):
    """scale * the biased MMD^2 of unit embeddings under a Gaussian kernel.

    Args:
        x, y: embeddings [n, d] and [m, d]; they are normalised here.
        sigma: width of the kernel.
        scale: the published numbers are in thousandths.

    Raises:
        BadInput: embeddings that cannot be compared, or of length 0.
    """
    x, y = (_unit(z) for z in feature_pair(x, y))
    return scale * mmd2(rbf(sigma), x, y, biased=True)


def _unit(z):
    length = np.linalg.norm(z, axis=1, keepdims=True)
    if not length.all():
        raise BadInput("an embedding is all zeros; CMMD needs a direction of each.")
    return z / length
