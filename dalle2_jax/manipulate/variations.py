"""unCLIP §3.1: variations: the same z_i and x_T, decoded with new noise on the way."""

import dataclasses

import jax
import jax.numpy as jnp

from dalle2_jax.manipulate.latent import EXACT, encode, render
from dalle2_jax.unclip import sample_keys


def reconstruct(model, image, how=EXACT, seed=0):
    """Pictures through (z_i, x_T) and back, eta = 0: [b, y, x, 3] in [-1, 1].

    Args:
        model: UnCLIP; image float32 [b, y, x, 3] in [-1, 1].
        how: Sampling of the inversion and of the decoder.
        seed: of the upsamplers' noise.
    """
    return render(model, encode(model, image, how=how), keys_of(image, seed), how=how)


def variations(model, image, count, eta=1.0, how=EXACT, seed=0, ways=None):
    """`count` pictures that share what CLIP sees in one: [count, y, x, 3] in [-1, 1].

    Args:
        model: UnCLIP.
        image: float32 [1, y, x, 3] in [-1, 1].
        count: how many.
        eta: of DDIM; 0 gives the picture back, more lets go of what is not in z_i.
        how: the decoder's Sampling; guidance above 1 keeps closer to z_i.
        seed: variation i depends on (seed, i) alone.
        ways: {stage: Sampling} of the upsamplers.
    """
    latent = encode(model, image, how=how)
    many = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), latent)
    how = dataclasses.replace(how, sampler="ddim", eta=float(eta))
    return render(model, many, sample_keys(seed, 0, count), how=how, ways=ways)


def keys_of(image, seed):
    """One key per picture of a batch."""
    return sample_keys(seed, 0, len(image))
