"""The first values of a decoder's whitening layer, from the embeddings it will hear."""

import jax
import numpy as np

from dalle2_jax.unclip import (
    decoder_condition,
    encode_captions,
    encode_images,
    from_uint8,
)

SAMPLES = 4096
FLOOR = 0.02  # of the largest eigenvalue, added to each: noise is not blown up


def whitening(batches, clip_cfg, clip_params):
    """PCA whitening of z_i over the first samples of a run.

    Args:
        batches: iterator of Captioned.
        clip_cfg, clip_params: the frozen CLIP.

    Returns:
        {"kernel" [clip, clip], "bias" [clip]}, float32 NumPy.
    """

    @jax.jit
    def embed(params, batch):
        caption = encode_captions(clip_cfg, params, batch.tokens)
        z_image = encode_images(clip_cfg, params, from_uint8(batch.image))
        return decoder_condition(caption, z_image).z_image

    parts, count = [], 0
    while count < SAMPLES:
        parts.append(np.asarray(embed(clip_params, next(batches)), np.float64))
        count += len(parts[-1])
    return pca_whitening(np.concatenate(parts))


def pca_whitening(z):
    """The linear map that gives z [n, d] zero mean and about unit covariance."""
    mean = z.mean(0)
    values, vectors = np.linalg.eigh(np.cov(z, rowvar=False))
    kernel = vectors / np.sqrt(values + FLOOR * values[-1])
    layer = {"kernel": kernel, "bias": -mean @ kernel}
    return {name: value.astype(np.float32) for name, value in layer.items()}
