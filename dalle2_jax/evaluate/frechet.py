"""The Fréchet distance of two feature sets (Heusel et al. 2017, eq. 6), in float64."""

from typing import NamedTuple

import numpy as np

from dalle2_jax.errors import BadInput


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
    """Moments of features [n, d]."""
    x = np.asarray(features, np.float64)
    mean = x.mean(0)
    return Moments(len(x), mean, (x - mean).T @ (x - mean))


def merge(a, b):
    """Moments of the union of two sets (Chan et al. 1979)."""
    n, apart = a.count + b.count, b.mean - a.mean
    m2 = a.m2 + b.m2 + np.outer(apart, apart) * a.count * b.count / n
    return Moments(n, a.mean + apart * b.count / n, m2)


def frechet_distance(a, b):
    """|mu_a - mu_b|^2 + tr(A + B - 2 (AB)^1/2) of two Moments, by eigh alone.

    Raises:
        BadInput: fewer than two samples, or features of different sizes.
    """
    if min(a.count, b.count) < 2:
        raise BadInput("a Fréchet distance needs at least 2 samples on each side.")
    if a.mean.shape != b.mean.shape:
        sizes = f"{a.mean.shape[0]} and {b.mean.shape[0]}"
        raise BadInput(f"the two sides have features of different sizes ({sizes}).")
    values, vectors = np.linalg.eigh(b.covariance)
    root = vectors * np.sqrt(np.clip(values, 0, None))
    inner = np.linalg.eigvalsh(root.T @ a.covariance @ root)
    cross = np.sqrt(np.clip(inner, 0, None)).sum()
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    return float(((a.mean - b.mean) ** 2).sum() + traces - 2 * cross)
