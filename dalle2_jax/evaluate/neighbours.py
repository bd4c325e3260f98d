"""Fidelity and diversity by balls around nearest neighbours.

Precision and recall: Kynkäänniemi et al. 2019, eq. 1 and 2. Density and coverage: Naeem
et al. 2020, section 3. Distances are Euclidean, in float64, a block of rows at a time.
"""

import numpy as np

from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.frechet import feature_pair

ENTRIES = 1 << 24  # of a matrix of distances that are in memory at a time
ROUNDING = 1e-12  # of |x|^2 + |y|^2; closer than that is the same point


def precision_recall(real, fake, k=3):
    """(share of fakes in a ball of the reals, share of reals in a ball of the fakes).

    A ball reaches from a sample to its k-th nearest neighbour, the rim included.

    Args:
        real, fake: features [n, d] and [m, d].
        k: neighbours, fewer than there are samples.

    Raises:
        BadInput: features that cannot be compared, or too few.
    """
    real, fake = _pair(real, fake, k)
    return _inside(fake, real, radii(real, k)), _inside(real, fake, radii(fake, k))


def density_coverage(real, fake, k=5):
    """(how many of the reals' balls a fake is in, over k; share of reals with a fake).

    Here the rim does not count, as in the authors' package. Arguments and errors are
    those of `precision_recall`.
    """
    real, fake = _pair(real, fake, k)
    reach = radii(real, k)
    inside, covered = 0, 0
    for rows, apart in _blocks(real, fake):
        within = apart < reach[rows, None]
        inside += within.sum()
        covered += within.any(1).sum()
    return float(inside / (k * len(fake))), float(covered / len(real))


def radii(x, k):
    """Squared distance to the k-th nearest other sample: x [n, d] -> [n]."""
    kth = [np.partition(apart, k, axis=1)[:, k] for _, apart in _blocks(x, x)]
    return np.concatenate(kth)


def _inside(x, centres, reach):
    """Share of x that is in at least one ball."""
    found = [(apart <= reach).any(1).sum() for _, apart in _blocks(x, centres)]
    return float(sum(found) / len(x))


def _blocks(x, y):
    """(rows, squared distances of x[rows] to all y), the same point at exactly 0."""
    square_x, square_y = (x * x).sum(1), (y * y).sum(1)
    step = max(1, ENTRIES // len(y))
    for i in range(0, len(x), step):
        rows = slice(i, i + step)
        sizes = square_x[rows, None] + square_y
        apart = sizes - 2 * (x[rows] @ y.T)
        yield rows, np.where(apart > ROUNDING * sizes, apart, 0)


def _pair(real, fake, k):
    real, fake = feature_pair(real, fake)
    fewest = min(len(real), len(fake))
    if not 1 <= k < fewest:
        raise BadInput(
            f"the neighbour number {k} of {fewest} samples does not exist; choose k "
            f"between 1 and {fewest - 1}."
        )
    return real, fake
