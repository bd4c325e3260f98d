"""unCLIP §2.2: draw two z_i, keep the one with the larger dot product with z_t."""

import jax.numpy as jnp


def closest(candidates, z_text):
    """candidates [k, b, clip], z_text [b, clip] -> the closest ones, [b, clip]."""
    dots = jnp.einsum("kbd,bd->kb", candidates, z_text)
    best = jnp.argmax(dots, axis=0)
    return jnp.take_along_axis(candidates, best[None, :, None], axis=0)[0]
