"""unCLIP §3.3: text diffs: z_i is turned towards the difference of two captions."""

import jax.numpy as jnp
import numpy as np

from dalle2_jax.data.picture_arrays import check_pictures
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.embeddings import normalised
from dalle2_jax.manipulate.geometry import slerp
from dalle2_jax.manipulate.interpolate import same_keys
from dalle2_jax.manipulate.latent import EXACT, Latent, encode, hear, render
from dalle2_jax.unclip import check_count

MOST = 0.35  # of the way to z_d; the paper goes to between 0.25 and 0.5


def text_diff(model, image, new, old="", most=MOST, count=5, how=EXACT, seed=0):
    """A picture on its way from one description to another: [count, y, x, 3].

    z_theta = slerp(z_i, z_d, theta) with z_d = norm(z_t - z_t0); x_T stays that of the
    picture, so that what the diff does not speak of stays too.

    Args:
        model: UnCLIP.
        image: one picture (`picture_arrays`).
        new: the caption whose embedding is z_t.
        old: that of z_t0: a caption of the picture, "a photo", or "".
        most: the largest theta.
        count: pictures, theta from 0 to `most`.
        how: Sampling of the inversion and the decoder.
        seed: of the upsamplers.

    Raises:
        BadInput: the captions have the same embedding, or theta leaves 0 to 1.
    """
    image, count = check_pictures(image, 1), check_count(count, least=2)
    if not 0 < most <= 1:
        raise BadInput(f"the largest theta is {most}; take one above 0, at most 1.")
    theta = np.linspace(0, most, count, dtype=np.float32)
    latent = encode(model, image, how=how)
    z_image = slerp(latent.z_image, direction(model, new, old), theta[:, None])
    many = Latent(z_image, jnp.repeat(latent.x_T, count, axis=0))
    return render(model, many, same_keys(count, seed), how=how)


def direction(model, new, old):
    """z_d = norm(z_t - z_t0): unit [1, clip]."""
    pooled = hear(model, [new, old]).pooled
    if not float(jnp.abs(pooled[0] - pooled[1]).max()) > 1e-6:
        raise BadInput(
            f"{new!r} and {old!r} mean the same to CLIP; change one of them."
        )
    return normalised(pooled[:1] - pooled[1:])
