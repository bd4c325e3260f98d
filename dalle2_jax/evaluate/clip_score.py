"""CLIP score: the cosine of a caption's and a picture's embedding, and the features."""

import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.data.picture_arrays import as_bytes
from dalle2_jax.unclip import encode_captions, encode_images, from_uint8


def image_features(clip, images, batch=256):
    """Unit z_i of pictures, in the run's own CLIP.

    Args:
        clip: Component of CLIP.
        images: n pictures (`picture_arrays`).

    Returns:
        float32 [n, clip].
    """
    images = np.asarray(as_bytes(images))
    encode = jax.jit(lambda params, x: encode_images(clip.cfg, params, from_uint8(x)))
    return _in_batches(lambda x: encode(clip.params, x), images, batch)


def text_features(clip, tokenizer, captions, batch=256):
    """Unit z_t of captions: float32 [n, clip]."""
    encode = jax.jit(lambda params, x: encode_captions(clip.cfg, params, x).pooled)
    tokens = tokenizer.encode(captions, clip.cfg.text.context)
    return _in_batches(lambda x: encode(clip.params, x), tokens, batch)


def clip_score(z_image, z_text):
    """Mean cosine of matching rows [n, d], raw, between -1 and 1."""
    lengths = np.linalg.norm(z_image, axis=-1) * np.linalg.norm(z_text, axis=-1)
    return float(np.mean(np.sum(z_image * z_text, axis=-1) / lengths))


def unit(z):
    """Rows of z [n, d] at length 1, in float64; a row of zeros stays as it is."""
    z = np.asarray(z, np.float64)
    return z / np.maximum(np.linalg.norm(z, axis=-1, keepdims=True), 1e-12)


def rerank(model, pictures, captions, n, keep):
    """Of each caption's n pictures the `keep` that CLIP finds closest to it.

    Args:
        model: UnCLIP with clip and tokenizer.
        pictures: uint8 [captions x n, y, x, 3], the n of a caption in a row.
        captions: as many strings.
        n, keep: whole numbers, keep <= n.

    Returns:
        (numbers int [captions x keep] of the kept, the closest first; their cosines).
    """
    z_image = image_features(model.clip, pictures)
    z_text = text_features(model.clip, model.tokenizer, captions)
    cosines = np.sum(z_image * z_text, axis=-1).reshape(-1, n)
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :keep]
    numbers = (best + n * np.arange(len(best))[:, None]).ravel()
    return numbers, cosines.ravel()[numbers]


def _in_batches(call, x, batch):
    """Fixed shapes for the compiler: the last batch is padded, the padding dropped."""
    parts = []
    for first in range(0, len(x), batch):
        part = x[first : first + batch]
        padding = [(0, batch - len(part))] + [(0, 0)] * (part.ndim - 1)
        parts.append(np.asarray(call(jnp.asarray(np.pad(part, padding)))[: len(part)]))
    return np.concatenate(parts)
