"""From tables of rated pictures to an aesthetic probe on a CLIP (unCLIP App. A).

Tables are csv, parquet, npy, npz, and AVA's own list.

A csv or parquet file has a column `rating` and a column `image` (paths, relative to
the file) or `embedding` (lists of numbers). npy: [n, clip + 1], the rating last; npz:
`embedding` [n, clip] and `rating` [n]. AVA.txt: per line a number, an image number and
how many people gave the ratings 1 to 10; the pictures are IMAGE.jpg in a folder.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from dalle2_jax.data.numpy_files import arrays_of, mapped
from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.aesthetics import fit, predict
from dalle2_jax.evaluate.features import clip_extractor, extract
from dalle2_jax.manipulate.reading import read_picture

RATINGS = ("rating", "mean_rating", "score", "MOS")  # columns, the first there is
IMAGES = ("image", "path", "file", "image_path")
EMBEDDINGS = ("embedding", "emb")
CHUNK = 256  # pictures in memory at a time


class Ratings(NamedTuple):
    """rating float64 [n]; of pictures (paths) or of embeddings (float32 [n, clip])."""

    rating: np.ndarray
    paths: list | None = None
    embeddings: np.ndarray | None = None


def read_ratings(path, images=None):
    """The Ratings in a file; images: the folder of AVA's pictures, or of all paths.

    Raises:
        BadInput: it cannot be read, lacks a column, or a rating is no finite number.
    """
    path = Path(path)
    readers = {
        ".csv": _table,
        ".parquet": _table,
        ".npy": _arrays,
        ".npz": _arrays,
        ".txt": _ava,
    }
    if path.suffix not in readers:
        known = ", ".join(readers)
        raise BadInput(f"{path} is no table of ratings; give one of {known}.")
    try:
        found = readers[path.suffix](path, Path(images or path.parent))
    except (OSError, ValueError, EOFError, pa.ArrowException) as error:
        said = str(error).splitlines()[0]
        raise BadInput(f"{path} cannot be read as ratings ({said}).") from error
    wrong = np.flatnonzero(~np.isfinite(found.rating))
    if len(wrong):
        raise BadInput(f"{path}: row {wrong[0]} has no finite rating; mend or drop it.")
    return found


def fit_ratings(clip, path, images=None):
    """An aesthetic probe on the ratings of a file.

    Args:
        clip: Component of CLIP.
        path, images: as of `read_ratings`.

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


def _table(path, images):
    parquet = path.suffix == ".parquet"
    table = (pa.parquet.read_table if parquet else pa.csv.read_csv)(path)
    column = _column(path, table, RATINGS)
    rating = column.to_numpy(zero_copy_only=False).astype(np.float64)
    if any(name in table.column_names for name in EMBEDDINGS):
        rows = _column(path, table, EMBEDDINGS).to_pylist()
        return Ratings(rating, embeddings=np.array(rows, np.float32))
    names = _column(path, table, IMAGES, " or `embedding`").to_pylist()
    return Ratings(rating, [images / str(name) for name in names])


def _column(path, table, names, also=""):
    for name in names:
        if name in table.column_names:
            return table[name].combine_chunks()
    there = ", ".join(table.column_names)
    raise BadInput(f"{path} has no column `{names[0]}`{also}; its columns are {there}.")


def _arrays(path, _):
    if path.suffix == ".npy":
        held = mapped(path)
        if held.ndim != 2 or held.shape[1] < 2 or held.dtype.kind != "f":
            raise ValueError("it must be floats [n, clip + 1], the rating last")
        return Ratings(held[:, -1].astype(np.float64), embeddings=held[:, :-1])
    held = arrays_of(path)
    if lacking := {"embedding", "rating"} - set(held):
        raise BadInput(f"{path} has no array `{sorted(lacking)[0]}`.")
    return Ratings(held["rating"].astype(np.float64), embeddings=held["embedding"])


def _ava(path, images):
    rows = np.loadtxt(path, dtype=np.float64, ndmin=2)
    if rows.shape[1] < 12:
        raise ValueError("AVA has 12 or more numbers a line")
    counts = rows[:, 2:12]
    rating = (counts @ np.arange(1, 11)) / counts.sum(1)
    return Ratings(rating, [images / f"{int(number)}.jpg" for number in rows[:, 1]])
