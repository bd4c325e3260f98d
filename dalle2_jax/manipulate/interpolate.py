"""unCLIP §3.2: between two pictures, and mixtures of several pictures and captions."""

import jax.numpy as jnp
import numpy as np

from dalle2_jax.data.picture_arrays import check_pictures
from dalle2_jax.data.tokens import as_captions
from dalle2_jax.diffusion.samplers import initial_noise
from dalle2_jax.errors import BadInput
from dalle2_jax.manipulate.geometry import mean_direction, slerp, slerp_noise
from dalle2_jax.manipulate.latent import EXACT, Latent, encode, imagine, render, see
from dalle2_jax.unclip import check_count, sample_keys


def interpolate(model, images, count, noise="slerp", how=EXACT, seed=0, ways=None):
    """A row of pictures from one to the other: [count, y, x, 3] in [-1, 1].

    Args:
        model: UnCLIP.
        images: two pictures (`picture_arrays`).
        count: pictures, both ends included.
        noise: "slerp": x_T goes from one picture's to the other's, so that the ends are
            reconstructions; "fixed": one x_T of the seed for all.
        how, ways: Sampling of the decoder, {stage: Sampling} of the upsamplers.
        seed: of the upsamplers, and of x_T where it is fixed.

    Raises:
        BadInput: not two pictures, fewer than two steps, or another kind of noise.
    """
    images, count = check_pictures(images, 2, "images"), check_count(count, least=2)
    if noise not in ("slerp", "fixed"):
        raise BadInput(f"the noise is {noise!r}; take 'slerp' or 'fixed'.")
    theta = np.linspace(0, 1, count, dtype=np.float32)
    both = encode(model, images, how=how)
    a, b = (Latent(*(x[i : i + 1] for x in both)) for i in range(2))
    z_image = slerp(a.z_image, b.z_image, theta[:, None])
    if noise == "slerp":
        ends = (jnp.repeat(x.x_T, count, axis=0) for x in (a, b))
        x_T = slerp_noise(*ends, theta)
    else:
        x_T = same_noise(model, count, seed)
    keys = same_keys(count, seed)
    return render(model, Latent(z_image, x_T), keys, how=how, ways=ways)


def mix(model, images, captions, weights, count=1, how=EXACT, seed=0, ways=None):
    """Pictures of one z_i mixed from several: [count, y, x, 3] in [-1, 1].

    Args:
        model: UnCLIP, with a prior where there are captions.
        images: n pictures (`picture_arrays`); may be empty, or None.
        captions: m strings, whose z_i come from the prior; may be empty, or None.
        weights: n + m numbers, images first; negative ones lead away.
        count, how, seed, ways: as in `variations`.

    Raises:
        BadInput: other than n + m weights, or they cancel out.
    """
    count, captions = check_count(count), as_captions(captions or [])
    given = images is not None and (not hasattr(images, "__len__") or len(images))
    parts = [see(model, images)] if given else []
    if captions:
        parts.append(
            imagine(model, captions, sample_keys(seed, 0, len(captions)), ways)
        )
    if not parts:
        raise BadInput("there is nothing to mix; give images or captions.")
    z_image = mean_direction(jnp.concatenate(parts), weights)
    keys = sample_keys(seed, 0, count)
    size = model.decoder.cfg.size
    many = Latent(jnp.tile(z_image, (count, 1)), initial_noise(keys, (size, size, 3)))
    return render(model, many, keys, how=how, ways=ways)


def same_keys(count, seed):
    """One sample's key, count times: what differs is then not the noise."""
    return jnp.repeat(sample_keys(seed, 0, 1), count)


def same_noise(model, count, seed):
    """One x_T, count times."""
    size = model.decoder.cfg.size
    return initial_noise(same_keys(count, seed), (size, size, 3))
