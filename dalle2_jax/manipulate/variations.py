"""unCLIP §3.1: variations: the same z_i and x_T, decoded with new noise on the way."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from dalle2_jax.data.picture_arrays import check_pictures
from dalle2_jax.manipulate.latent import EXACT, encode, render
from dalle2_jax.unclip import Sampling, UnCLIP, check_count, sample_keys


def reconstruct(
    model: UnCLIP, image: Any, how: Sampling = EXACT, seed: int = 0
) -> jax.Array:
    """Pictures through (z_i, x_T) and back, eta = 0: [b, y, x, 3] in [-1, 1].

    Args:
        model: UnCLIP.
        image: b pictures (`picture_arrays`).
        how: Sampling of the inversion and of the decoder.
        seed: of the upsamplers' noise.
    """
    latent = encode(model, image, how=how)
    keys = sample_keys(seed, 0, len(latent.z_image))
    return render(model, latent, keys, how=how)


def variations(
    model: UnCLIP,
    image: Any,
    count: int,
    eta: float = 1.0,
    how: Sampling = EXACT,
    seed: int = 0,
    ways: dict | None = None,
) -> jax.Array:
    """`count` pictures that share what CLIP sees in one: [count, y, x, 3] in [-1, 1].

    Args:
        model: UnCLIP.
        image: one picture (`picture_arrays`).
        count: how many, at least 1.
        eta: of DDIM; 0 gives the picture back, more lets go of what is not in z_i.
        how: the decoder's Sampling; guidance above 1 keeps closer to z_i.
        seed: variation i depends on (seed, i) alone.
        ways: {stage: Sampling} of the upsamplers.

    Raises:
        BadInput: not one picture, or a number out of its range.
    """
    image, count = check_pictures(image, 1), check_count(count)
    latent = encode(model, image, how=how)
    many = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), latent)
    how = dataclasses.replace(how, sampler="ddim", eta=float(eta))
    return render(model, many, sample_keys(seed, 0, count), how=how, ways=ways)
