"""The Fréchet distance of two feature sets (Heusel et al. 2017, eq. 6), in float64."""

import functools
from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from dalle2_jax.errors import BadInput

ROWS = 8192  # of features that are copied to float64 at a time


class Moments(NamedTuple):
    """count; mean [d]; M2 [d, d], the sum of centred outer products. float64."""

    count: int
    mean: np.ndarray
    m2: np.ndarray

    @property
    def covariance(self):
        """The unbiased covariance [d, d]."""
        return self.m2 / (self.count - 1)


def checked(features, what="features"):
    """Features [n, d] in float64.

    Raises:
        BadInput: not a matrix, fewer than 2 samples, or not finite.
    """
    x = np.asarray(features, np.float64)
    if x.ndim != 2 or not x.shape[1]:
        raise BadInput(f"{what} must be [samples, size], not of shape {x.shape}.")
    if len(x) < 2:
        raise BadInput(f"{len(x)} samples are too few; give at least 2.")
    bad = ~np.isfinite(x).all(1)
    if bad.any():
        raise BadInput(
            f"the {what} of sample {bad.argmax()} (one of {bad.sum()}) are not finite; "
            "check the network that made them."
        )
    return x


def feature_pair(x, y):
    """`checked` features of two sets.

    Raises:
        BadInput: either is wrong, or their sizes differ.
    """
    x, y = checked(x), checked(y)
    if x.shape[1] != y.shape[1]:
        sizes = f"{x.shape[1]} and {y.shape[1]}"
        raise BadInput(f"the two sides have features of different sizes ({sizes}).")
    return x, y


def moments(features):
    """Moments of features [n, d], n at least 1, in float64 on the host.

    float32 products would make a distance depend on the batches by 1e-7 to 1e-6.
    """
    x = np.asarray(features)
    parts = (_block(x[i : i + ROWS]) for i in range(0, len(x), ROWS))
    return functools.reduce(merge, parts)


def merge(a, b):
    """Moments of the union of two sets (Chan et al. 1979)."""
    n, apart = a.count + b.count, b.mean - a.mean
    m2 = a.m2 + b.m2 + np.outer(apart, apart) * a.count * b.count / n
    return Moments(n, a.mean + apart * b.count / n, m2)


def frechet_distance(a, b):
    """|mu_a - mu_b|^2 + tr(A + B - 2 (AB)^1/2) of two Moments.

    With A = F F^T and B = G G^T the last trace is the sum of the singular values of
    F^T G, which are right to the last digits. Square roots of the eigenvalues of AB are
    not where a set has fewer samples than features: 1e-8 of the distance was seen.

    Returns:
        float; of a set with itself 0 up to rounding, which may be negative.

    Raises:
        BadInput: fewer than two samples, or features of different sizes, or not finite.
    """
    if min(a.count, b.count) < 2:
        raise BadInput("a Fréchet distance needs at least 2 samples on each side.")
    if a.mean.shape != b.mean.shape:
        sizes = f"{a.mean.shape[0]} and {b.mean.shape[0]}"
        raise BadInput(f"the two sides have features of different sizes ({sizes}).")
    if not all(np.isfinite(x).all() for x in (a.mean, a.m2, b.mean, b.m2)):
        raise BadInput("features are not finite; check the network that made them.")
    shared = _root(a.covariance).T @ _root(b.covariance)
    cross = np.linalg.svd(shared, compute_uv=False).sum()
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    return float(((a.mean - b.mean) ** 2).sum() + traces - 2 * cross)


def _root(covariance):
    """F [d, rank] with F F^T = the covariance [d, d]: Cholesky with pivots.

    Of 60 samples of 2048 features it takes a fraction of what eigenvectors take.
    """
    factor, pivots, rank, _ = lapack.dpstrf(covariance, lower=1)
    root = np.empty((len(factor), rank))
    root[pivots - 1] = np.tril(factor)[:, :rank]
    return root


def _block(x):
    x = np.asarray(x, np.float64)
    mean = x.mean(0)
    return Moments(len(x), mean, (x - mean).T @ (x - mean))
