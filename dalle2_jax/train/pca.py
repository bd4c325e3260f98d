"""Tables of the priors fitted to stored embeddings: PCA codes, and whitening.

Moments are summed in float64 over all rows in their order, one chunk after another, so
that the result is a function of the files alone.
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dalle2_jax.errors import BadInput
from dalle2_jax.files import local_path, replacing
from dalle2_jax.prior.codes import codes_of_moments, fit_dots, quality

CHUNK = 16_384
TABLES = {  # what each stage takes from a file
    "autoregressive": (
        "codes_mean",
        "codes_axes",
        "codes_centres",
        "codes_share",
        "dot_edges",
    ),
    "prior": ("clip_mean", "clip_std"),
}


class Sizes(NamedTuple):
    """components and buckets of the codes; dots: buckets of z_i . z_t.

    sample: rows, evenly spread, that quantiles are taken from.
    """

    components: int
    buckets: int = 1024
    dots: int = 1024
    sample: int = 200_000


class Moments(NamedTuple):
    """Of all rows: their number; mean float64 [d]; covariance float64 [d, d]."""

    count: int
    mean: np.ndarray
    covariance: np.ndarray


def moments_of(chunks):
    """Moments of float64 chunks [m, d], in one pass.

    Sums are taken about the first chunk's mean, which keeps their digits.
    """
    count, centre = 0, None
    for z in chunks:
        if centre is None:
            centre = z.mean(0)
            total, products = np.zeros_like(centre), np.zeros((len(centre),) * 2)
        z = z - centre
        count, total, products = count + len(z), total + z.sum(0), products + z.T @ z
    mean = total / count
    covariance = (products - count * np.outer(mean, mean)) / max(count - 1, 1)
    return Moments(count, mean + centre, covariance)


def fit_file(source, unit, sizes, clip=None):
    """The tables of a folder of embeddings.

    Args:
        source: EmbeddingSource.
        unit: whether the stages of this CLIP hear unit vectors.
        sizes: Sizes.
        clip: digest of the CLIP, kept in the file.

    Returns:
        ({name: float32 array}, what is known of them); dot_edges only where the folder
        holds text embeddings.

    Raises:
        BadInput: more components than dimensions, or too few rows.
    """
    found = moments_of(z for z, _ in _chunks(source, unit))
    step = math.ceil(len(source) / sizes.sample)
    z_image, z_text = _every(_chunks(source, unit), step)
    codes = codes_of_moments(
        found.mean, found.covariance, z_image, sizes.components, sizes.buckets
    )
    error = quality(codes, z_image)[1]
    tables = {f"codes_{name}": table for name, table in codes._asdict().items()}
    if z_text is not None:
        tables["dot_edges"] = fit_dots(z_image, z_text, sizes.dots)
    tables["clip_mean"] = found.mean.astype(np.float32)
    deviation = np.sqrt(found.covariance.diagonal())
    tables["clip_std"] = np.maximum(deviation, 1e-6).astype(np.float32)
    about = {"rows": found.count, "clip": clip, **sizes._asdict()}
    explained = float(codes.share.sum())
    return tables, {**about, "explained": explained, "lost": float(error)}


def _chunks(source, unit):
    """float64 (z_image, z_text) in order, of norm 1 where `unit`."""
    for pair in source.chunks(CHUNK):
        yield tuple(None if z is None else _scaled(z, unit) for z in pair)


def _scaled(z, unit):
    z = z.astype(np.float64)
    return z / np.linalg.norm(z, axis=1, keepdims=True) if unit else z


def _every(chunks, step):
    """Every step-th row of all: (z_image, z_text or None)."""
    chosen, first = [], 0
    for z_image, z_text in chunks:
        rows = slice(-first % step, None, step)
        chosen.append((z_image[rows], None if z_text is None else z_text[rows]))
        first += len(z_image)
    images, texts = zip(*chosen)
    return np.concatenate(images), None if texts[0] is None else np.concatenate(texts)


def save_tables(path, tables, about):
    """Writes a safetensors file; `about` is JSON in its metadata."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = {name: np.ascontiguousarray(table) for name, table in tables.items()}
    with replacing(path) as draft:
        save_file(flat, draft, metadata={"dalle2_jax": json.dumps(about)})


def with_tables(run, params):
    """`params` of a prior with the tables of the file `run.codes`.

    Raises:
        BadInput: the file is none of `dalle2 data fit-pca`, or of other sizes.
    """
    tables = read_tables(run.codes)[0]
    for name in TABLES[run.stage]:
        if name not in tables:
            raise BadInput(
                f"{run.codes} holds no {name}; fit it again with `dalle2 data fit-pca` "
                "to embeddings of pictures and captions."
            )
        if tables[name].shape != params[name].shape:
            raise BadInput(
                f"{run.codes}: {name} is {list(tables[name].shape)}, config.model asks "
                f"for {list(params[name].shape)} (clip, codes, buckets, dots); fit it "
                "with those sizes."
            )
    return {**params, **{name: tables[name] for name in TABLES[run.stage]}}


def check_tables(path, digest):
    """Refuses the tables of another CLIP.

    Raises:
        BadInput: the file says that another one made the embeddings.
    """
    made_by = read_tables(path)[1].get("clip")
    if made_by not in (None, digest):
        raise BadInput(
            f"{path} was fitted to embeddings of another CLIP (SHA-256 "
            f"{made_by[:12]}...); fit it again to embeddings of this one."
        )


UNREADABLE = (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError)


def read_tables(path):
    """({name: array}, what is known of them) of a file of `save_tables`.

    Raises:
        BadInput: there is no such file, or it is damaged.
    """
    try:
        with safe_open(local_path(path), "np") as file:
            tables = {name: file.get_tensor(name) for name in sorted(file.keys())}
            return tables, json.loads((file.metadata() or {})["dalle2_jax"])
    except UNREADABLE as error:
        raise BadInput(
            f"{path} is no readable file of `dalle2 data fit-pca` ({error})."
        ) from error
