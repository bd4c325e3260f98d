"""unCLIP §4: z_i with fewer and fewer principal components, decoded from one x_T."""

import jax.numpy as jnp
import numpy as np

from dalle2_jax.data.picture_arrays import check_pictures
from dalle2_jax.errors import BadInput
from dalle2_jax.manipulate.latent import EXACT, Latent, encode, render
from dalle2_jax.prior.codes import fit_codes
from dalle2_jax.unclip import sample_keys


def principal_axes(z):
    """Mean [clip] and axes [clip, clip] of embeddings [n, clip], n > clip, by variance.

    Raises:
        BadInput: there are too few embeddings.
    """
    codes = fit_codes(z, count=np.shape(z)[1], buckets=2)
    return codes.mean, codes.axes


def truncated(z, mean, axes, count):
    """z [b, clip] with all but the first `count` components set to their mean."""
    kept = jnp.asarray(axes)[:count]
    return mean + (z - mean) @ kept.T @ kept


def pca_reconstructions(model, image, mean, axes, counts, how=EXACT, seed=0):
    """One picture from growing parts of its embedding: [len(counts), y, x, 3].

    Args:
        model: UnCLIP.
        image: one picture (`picture_arrays`).
        mean, axes: of `principal_axes`.
        counts: components kept, one picture each.
        how: the decoder's Sampling.
        seed: of the upsamplers.

    Raises:
        BadInput: a count beyond the width of the embedding.
    """
    if not counts or not 0 <= min(counts) <= max(counts) <= len(axes):
        raise BadInput(f"components {counts} must lie between 0 and {len(axes)}.")
    latent = encode(model, check_pictures(image, 1), how=how)
    z_image = [truncated(latent.z_image, mean, axes, count) for count in counts]
    many = Latent(jnp.concatenate(z_image), jnp.repeat(latent.x_T, len(counts), axis=0))
    keys = jnp.repeat(sample_keys(seed, 0, 1), len(counts))
    return render(model, many, keys, how=how)
