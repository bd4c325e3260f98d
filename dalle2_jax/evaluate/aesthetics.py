"""unCLIP §5.5, App. A: predicted aesthetics, a linear regression of ratings on z_i.

Fitted on rated pictures (AVA in the paper) or read from a published linear layer; the
mean prediction over samples is what a guidance scale is judged by.
"""

from typing import NamedTuple

import numpy as np

from dalle2_jax.components import FLOATS
from dalle2_jax.convert.containers import read_state
from dalle2_jax.data.numpy_files import arrays_of
from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.clip_score import unit

STRENGTHS = 10.0 ** np.arange(-4, 5)  # of the ridge, times n; the best one is taken
LAYER = ("weight", "bias")


class Aesthetic(NamedTuple):
    """rating of a unit z_i = z_i @ weight + bias; weight float64 [clip]."""

    weight: np.ndarray
    bias: float


def predict(probe, z_image):
    """Ratings [n] of z_i [n, clip], of any length.

    Raises:
        BadInput: the probe was fitted on another CLIP's width.
    """
    width = np.shape(z_image)[1]
    if width != len(probe.weight):
        raise BadInput(
            f"the aesthetic probe is for embeddings of width {len(probe.weight)}, this "
            f"CLIP's have {width}; fit one on this CLIP."
        )
    return unit(z_image) @ probe.weight + probe.bias


def fit(z_image, ratings):
    """Ridge regression; the strength is the best of STRENGTHS at leaving one out.

    Args:
        z_image: [n, clip], of any length.
        ratings: [n].

    Returns:
        (Aesthetic, R^2 of the left-out ratings: 1 is perfect, 0 is their mean).

    Raises:
        BadInput: fewer than 3 ratings, or all are the same.
    """
    x, y = unit(z_image), np.asarray(ratings, np.float64)
    if len(y) < 3 or np.ptp(y) == 0:
        raise BadInput("an aesthetic probe needs 3 or more ratings that differ.")
    mean, middle = x.mean(0), y.mean()
    u, s, vt = np.linalg.svd(x - mean, full_matrices=False)
    target = u.T @ (y - middle)
    errors, weights = [], []
    for strength in STRENGTHS * len(y):
        kept = s**2 / (s**2 + strength)
        leverage = (u**2 @ kept) + 1 / len(y)
        left = (y - middle - u @ (kept * target)) / np.maximum(1 - leverage, 1e-9)
        errors.append(np.mean(left**2))
        weights.append(vt.T @ (s / (s**2 + strength) * target))
    best = int(np.argmin(errors))
    probe = Aesthetic(weights[best], float(middle - mean @ weights[best]))
    return probe, float(1 - errors[best] / np.var(y))


def load(path):
    """A published linear layer: `weight` [1, clip] and `bias` [1].

    path: .npz, .safetensors, or a torch file (read without running it).

    Raises:
        BadInput: it holds anything else.
    """
    held = arrays_of(path) if str(path).endswith(".npz") else read_state(path)
    found = [np.asarray(held[n]) for n in LAYER if n in held]
    whole = len(found) == 2 and found[0].ndim and found[1].size == 1
    whole = whole and found[0].size == found[0].shape[-1]
    if not whole or any(array.dtype.name not in FLOATS for array in found):
        raise BadInput(
            f"{path} is no aesthetic probe: it must hold `weight` [1, clip] and `bias` "
            "[1], as a linear layer does."
        )
    weight, bias = found
    return Aesthetic(weight.astype(np.float64).ravel(), float(bias.item()))


def save(path, probe):
    """Writes an Aesthetic as .npz, which `load` reads."""
    np.savez(path, weight=probe.weight[None], bias=np.array([probe.bias]))
