"""The residual convolution of ADM (Dhariwal and Nichol 2021, section 3)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dalle2_jax.layers.place import along_batch
from dalle2_jax.layers.recompute import convolved


class GroupNorm(nn.Module):
    """GroupNorm over the last axis, epsilon 1e-5, float32 inside and out."""

    groups: int = 32

    @nn.compact
    def __call__(self, x):
        """x [b, ..., c] of any float dtype -> float32 of the same shape."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        y = x.astype(jnp.float32)
        y = y.reshape(len(x), -1, self.groups, channels // self.groups)
        y = y - y.mean((1, 3), keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, (1, 3), keepdims=True) + 1e-5)
        return y.reshape(x.shape) * scale + bias


def conv(features, dtype, name, zero=False, stride=1):
    """A 3x3 convolution with one pixel of padding on every side."""
    init = nn.initializers.zeros if zero else nn.initializers.lecun_normal()
    return nn.Conv(
        features, (3, 3), stride, padding=1, dtype=dtype, kernel_init=init, name=name
    )


def halve(x):
    """Mean of every 2x2 pixels: [b, y, x, c] -> [b, y / 2, x / 2, c]."""
    b, rows, columns, c = x.shape
    return x.reshape(b, rows // 2, 2, columns // 2, 2, c).mean((2, 4))


def double(x):
    """Every pixel four times: [b, y, x, c] -> [b, 2 y, 2 x, c]."""
    b, rows, columns, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, rows, 2, columns, 2, c))
    return x.reshape(b, 2 * rows, 2 * columns, c)


RESIZE = {"same": lambda x: x, "down": halve, "up": double}


class ResBlock(nn.Module):
    """norm, SiLU, conv, time, norm, SiLU, dropout, conv; plus the input.

    features: channels out. resize: "same", "down" or "up", between first SiLU and conv.
    scale_shift: time enters as (1 + scale) * norm + shift instead of being added.
    """

    features: int
    resize: str = "same"
    scale_shift: bool = True
    groups: int = 32
    dropout: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, time, train=False):
        """x [b, y, x, c], time (after its SiLU) [b, d] -> [b, y', x', features]."""
        h = jax.nn.silu(GroupNorm(self.groups, name="norm_1")(x)).astype(self.dtype)
        h, x = RESIZE[self.resize](h), RESIZE[self.resize](x)
        h = convolved(conv(self.features, self.dtype, "conv_1")(h))
        rows = self.features * (2 if self.scale_shift else 1)
        time = nn.Dense(rows, dtype=self.dtype, name="time")(time)[:, None, None]
        h = self._with_time(h, time)
        h = nn.Dropout(self.dropout, deterministic=not train)(jax.nn.silu(h))
        h = conv(self.features, self.dtype, "conv_2", zero=True)(h.astype(self.dtype))
        if x.shape[-1] != self.features:
            x = nn.Conv(self.features, (1, 1), dtype=self.dtype, name="skip")(x)
        return along_batch(x + h)

    def _with_time(self, h, time):
        norm = GroupNorm(self.groups, name="norm_2")
        if not self.scale_shift:
            return norm(h + time)
        scale, shift = jnp.split(time, 2, axis=-1)
        return norm(h) * (1 + scale) + shift
