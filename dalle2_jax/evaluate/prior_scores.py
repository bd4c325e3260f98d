"""unCLIP §2.2: how good is z_i of the prior, before anything is drawn from it?

Cosines alone, as people watch them while a prior trains: to the picture's z_i (higher
is better), to the caption's z_t and to the z_t of other captions (as close as the data
set's own z_i are to them, neither more nor less).
"""

import numpy as np

from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.clip_score import text_features, unit
from dalle2_jax.manipulate.latent import imagine
from dalle2_jax.unclip import sample_keys

COSINES = {  # name -> what it is called, and of what it is the cosine
    "to_image": "prior to the picture's z_i",
    "to_caption": "prior to its caption's z_t",
    "to_unrelated": "prior to other captions' z_t",
    "data_to_caption": "data: z_i to its caption's z_t",
    "data_to_unrelated": "data: z_i to other captions' z_t",
}


def prior_embeddings(model, captions, seed=0, how=None, batch=64):
    """z_i that the model's prior draws for captions: float32 [n, clip].

    Sample i depends on (model, caption, seed, i) alone, and is the one that `generate`
    draws from. how: {stage: Sampling}.
    """
    parts = []
    batch = min(batch, len(captions))
    for first in range(0, len(captions), batch):
        some = list(captions[first : first + batch])
        padded = some + some[-1:] * (batch - len(some))
        keys = sample_keys(seed, first, batch)
        parts.append(np.asarray(imagine(model, padded, keys, how))[: len(some)])
    return np.concatenate(parts)


def prior_scores(z_prior, z_image, z_text, captions=None):
    """Mean cosines of COSINES, each with its standard error.

    Args:
        z_prior, z_image, z_text: [n, clip], of matching rows; any length.
        captions: n strings; rows with the same one are related. None: all differ.

    Returns:
        {name: (mean, standard error over the n rows)}.

    Raises:
        BadInput: no two rows have different captions.
    """
    z_prior, z_image, z_text = map(unit, (z_prior, z_image, z_text))
    others = _unrelated(z_text, captions)
    rows = {
        "to_image": z_prior * z_image,
        "to_caption": z_prior * z_text,
        "to_unrelated": z_prior * others,
        "data_to_caption": z_image * z_text,
        "data_to_unrelated": z_image * others,
    }
    return {name: mean_and_error(found.sum(-1)) for name, found in rows.items()}


def score_rows(model, source, n, seed=0, how=None):
    """`prior_scores` on the first n rows of a folder of embeddings; no pictures needed.

    Args:
        model: UnCLIP with clip and prior.
        source: EmbeddingSource of that CLIP's embeddings, with captions.
        seed, how: as in `prior_embeddings`.

    Raises:
        BadInput: too few rows, no captions, or embeddings of another width.
    """
    if len(source) < n:
        raise BadInput(f"{source.folder} holds {len(source)} rows; lower --n from {n}.")
    if not source.has_captions:
        raise BadInput(f"{source.folder} has no captions, which the prior needs.")
    if source.width != model.clip.cfg.clip:
        raise BadInput(
            f"{source.folder} holds embeddings of width {source.width}, this CLIP "
            f"has {model.clip.cfg.clip}; embed the data with it."
        )
    rows = [source[i] for i in range(n)]
    captions = [row.caption for row in rows]
    z_prior = prior_embeddings(model, captions, seed, how)
    z_text = text_features(model.clip, model.tokenizer, captions)
    z_image = np.stack([row.z_image for row in rows])
    return prior_scores(z_prior, z_image, z_text, captions)


def mean_and_error(values):
    """Mean of [n] numbers, and its standard error (0 where n is 1)."""
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return float(np.mean(values)), float(spread / np.sqrt(len(values)))


def _unrelated(z_text, captions):
    """For each row the mean z_t of all rows with another caption, [n, clip].

    Its dot product with a vector is the mean of the vector's cosines with them all.
    """
    names = np.arange(len(z_text)) if captions is None else np.array(captions)
    _, group = np.unique(names.astype(str), return_inverse=True)
    sums = np.zeros((group.max() + 1, z_text.shape[1]))
    np.add.at(sums, group, z_text)
    count = len(z_text) - np.bincount(group)[group]
    if not count.all():
        raise BadInput("all captions are the same; cosines need some that differ.")
    return (z_text.sum(0) - sums[group]) / count[:, None]
