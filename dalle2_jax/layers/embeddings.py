"""Embeddings of time and of pixels, and the direction of a vector."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.layers.transformer import ACTIVATIONS


def time_sinusoid(t, width, period=10_000.0):
    """Sinusoids of a time step, cosines first (Vaswani et al. 2017, section 3.5).

    t [b] int or float -> float32 [b, width], width even.
    """
    half = width // 2
    exponents = np.arange(half, dtype=np.float32) / np.float32(half)
    frequencies = np.exp(np.float32(-np.log(period)) * exponents)
    angles = t.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimeEmbedding(nn.Module):
    """Sinusoid, dense, activation, dense; float32.

    width: of the sinusoid. hidden, out: of the two layers.
    """

    width: int
    hidden: int
    out: int
    activation: str = "silu"

    @nn.compact
    def __call__(self, t):
        """t [b] -> float32 [b, out]."""
        x = nn.Dense(self.hidden, name="in")(time_sinusoid(t, self.width))
        return nn.Dense(self.out, name="out")(ACTIVATIONS[self.activation](x))


def space_to_depth(image, patch):
    """[b, y, x, c] -> [b, y / patch, x / patch, patch * patch * c]."""
    b, y, x, c = image.shape
    image = image.reshape(b, y // patch, patch, x // patch, patch, c)
    image = image.transpose(0, 1, 3, 2, 4, 5)
    return image.reshape(b, y // patch, x // patch, patch * patch * c)


def depth_to_space(image, patch):
    """The inverse of space_to_depth."""
    b, y, x, c = image.shape
    image = image.reshape(b, y, x, patch, patch, c // patch**2)
    image = image.transpose(0, 1, 3, 2, 4, 5)
    return image.reshape(b, y * patch, x * patch, c // patch**2)


def normalised(z):
    """z [..., d] of any float dtype -> float32, the same directions at norm 1.

    Zeros stay zeros.
    """
    z = z.astype(jnp.float32)
    return z * jax.lax.rsqrt(jnp.maximum(jnp.sum(z * z, -1, keepdims=True), 1e-24))
