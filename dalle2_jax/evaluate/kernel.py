"""Maximum mean discrepancies: KID of Inception features, CMMD of CLIP embeddings.

KID (Bińkowski et al. 2018) has no bias in the number of samples, unlike a Fréchet
distance; CMMD (Jayasumana et al. 2024) keeps it, as its published numbers do.
"""

import numpy as np

from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.frechet import feature_pair

ROWS = 1024  # of a kernel matrix that are in memory at a time


def cubic(x, y):
    """KID's kernel (x . y / d + 1)^3 of x [n, d] and y [m, d]: [n, m]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def rbf(sigma):
    """The Gaussian kernel exp(-|x - y|^2 / (2 sigma^2)), a function like `cubic`."""

    def kernel(x, y):
        apart = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * (x @ y.T)
        return np.exp(-np.maximum(apart, 0) / (2 * sigma**2))

    return kernel


def mmd2(kernel, x, y, biased=False):
    """The squared maximum mean discrepancy of two sets (Gretton et al. 2012, eq. 3, 5).

    Args:
        kernel: (x [n, d], y [m, d]) -> [n, m], symmetric.
        x, y: float64 [n, d] and [m, d].
        biased: keep the pairs of a sample with itself.

    Returns:
        float; the unbiased one may be slightly below 0.
    """
    within = _mean_within(kernel, x, biased) + _mean_within(kernel, y, biased)
    blocks = [kernel(x[i : i + ROWS], y).sum() for i in range(0, len(x), ROWS)]
    return float(within - 2 * sum(blocks) / (len(x) * len(y)))


def kid(x, y, subsets=100, size=1000, seed=2020):
    """Mean and standard deviation of the unbiased cubic MMD^2 over random subsets.

    The subsets are torch-fidelity's: of x, then of y, from one seeded legacy generator.

    Args:
        x, y: features [n, d] and [m, d]; the generated ones first.
        subsets: how many are drawn.
        size: samples in a subset, drawn without replacement.
        seed: of the subsets.

    Raises:
        BadInput: features that cannot be compared, or fewer of them than `size`.
    """
    x, y = feature_pair(x, y)
    fewest = min(len(x), len(y))
    if not 2 <= size <= fewest:
        raise BadInput(
            f"KID draws subsets of {size} from {fewest} samples; choose a size between "
            f"2 and {fewest}."
        )
    draw = np.random.RandomState(seed).choice
    found = []
    for _ in range(subsets):
        a = x[draw(len(x), size, replace=False)]
        b = y[draw(len(y), size, replace=False)]
        found.append(mmd2(cubic, a, b))
    return float(np.mean(found)), float(np.std(found))


def cmmd(x, y, sigma=10.0, scale=1000.0):
    """scale * the biased MMD^2 of unit embeddings under a Gaussian kernel.

    Args:
        x, y: embeddings [n, d] and [m, d]; they are normalised here.
        sigma: width of the kernel.
        scale: the published numbers are in thousandths.

    Raises:
        BadInput: embeddings that cannot be compared, or of length 0.
    """
    x, y = (_directions(z) for z in feature_pair(x, y))
    return scale * mmd2(rbf(sigma), x, y, biased=True)


def _mean_within(kernel, x, biased):
    """Mean of the kernel over pairs of one set."""
    n, total = len(x), 0.0
    for i in range(0, n, ROWS):
        block = kernel(x[i : i + ROWS], x)
        total += block.sum() - (0 if biased else np.trace(block, offset=i))
    return total / (n * n if biased else n * (n - 1))


def _directions(z):
    length = np.linalg.norm(z, axis=1, keepdims=True)
    if not length.all():
        raise BadInput("an embedding is all zeros; CMMD needs a direction of each.")
    return z / length
