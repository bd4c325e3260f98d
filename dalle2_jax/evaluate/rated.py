"""From rated pictures to an aesthetic probe on a model's own CLIP (unCLIP App. A)."""

import numpy as np

from dalle2_jax.evaluate.aesthetics import fit, predict
from dalle2_jax.evaluate.features import clip_extractor, extract
from dalle2_jax.evaluate.ratings import read_ratings
from dalle2_jax.manipulate.reading import read_picture

CHUNK = 256  # pictures in memory at a time


def fit_ratings(clip, path, images=None):
    """An aesthetic probe on the ratings of a file.

    Args:
        clip: Component of CLIP.
        path, images: as of `ratings.read_ratings`.

    Returns:
        (Aesthetic, R^2 of left-out ratings, number of ratings).

    Raises:
        BadInput: the file or a picture cannot be read, or embeddings are of another
            CLIP's width.
    """
    found = read_ratings(path, images)
    z = found.embeddings if found.paths is None else _encode(clip, found.paths)
    probe, share = fit(z, found.rating)
    predict(probe, np.zeros((1, clip.cfg.clip)))
    return probe, share, len(found.rating)


def _encode(clip, paths):
    """z_i [n, clip] of picture files."""
    function, side = clip_extractor(clip).function, clip.cfg.image.size
    parts = []
    for first in range(0, len(paths), CHUNK):
        some = [read_picture(path, side) for path in paths[first : first + CHUNK]]
        parts.append(extract(function, np.stack(some))["pool"])
    return np.concatenate(parts)
