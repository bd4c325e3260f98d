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
        y = y - group_means(y, self.groups)
        y = y * jax.lax.rsqrt(group_means(y * y, self.groups) + 1e-5)
        return y * scale + bias


def group_means(x, groups):
    """Mean over all but the batch of every group of channels: [b, 1, ..., c].

    A channel gets its group's mean by a product with ones and zeros: XLA would compute
    an indexed copy anew for every pixel (0.7 for 0.4 ms at 128 x 128 x 64, two cores).
    """
    b, c = len(x), x.shape[-1]
    means = x.mean(range(1, x.ndim - 1)).reshape(b, groups, c // groups).mean(-1)
    members = jnp.repeat(jnp.eye(groups), c // groups, axis=1)
    means = jnp.dot(means, members, precision="highest")
    return means.reshape(b, *(1,) * (x.ndim - 2), c)


def conv(features, dtype, name, zero=False, stride=1):
    """A 3x3 convolution with one pixel of padding on every side."""
    init = nn.initializers.zeros if zero else nn.initializers.lecun_normal()
    return nn.Conv(
        features, (3, 3), stride, padding=1, dtype=dtype, kernel_init=init, name=name
    )


def _held(module, shape):
    """A kernel of that shape and its bias, as `nn.Conv` names and initialises them."""
    kernel = module.param("kernel", nn.initializers.lecun_normal(), shape)
    return kernel, module.param("bias", nn.initializers.zeros, shape[-1:])


def _padded_conv(x, kernel):
    """Convolution with [3, 3, c, d] or [2, 2, c, d] and a pixel of padding around x."""
    sizes, layout = ((1, 1), ((1, 1), (1, 1))), ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, *sizes, dimension_numbers=layout)


class DoubledConv(nn.Module):
    """`conv` of the picture that `double` makes, which is not written down for that.

    The four pixels made from one see just 2x2 pixels of x, weighed with sums of the
    kernel's rows and columns: 16 products in the place of 36. In training the picture
    is written down: the gradients of smaller kernels are slow on CPUs.
    """

    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train=False):
        """[b, y, x, c] -> [b, 2 y, 2 x, features]."""
        kernel, bias = _held(self, (3, 3, x.shape[-1], self.features))
        seen, taps = (double(x), kernel) if train else (x, _sums(kernel))
        seen, taps, bias = nn.dtypes.promote_dtype(seen, taps, bias, dtype=self.dtype)
        y = _padded_conv(seen, taps)
        return (y if train else _interleaved(y)) + bias


def _sums(kernel):
    """[3, 3, c, d] -> [2, 2, c, 4 d], for (even, odd) rows x (even, odd) columns."""
    kernel = kernel.astype(jnp.float32)
    for axis in (0, 1):
        first, middle, last = jnp.split(kernel, 3, axis)
        even = jnp.concatenate([first, middle + last], axis)
        odd = jnp.concatenate([first + middle, last], axis)
        kernel = jnp.stack([even, odd], -2)
    return kernel.reshape(*kernel.shape[:3], -1)


def _interleaved(y):
    """[b, y + 1, x + 1, 4 d] -> [b, 2 y, 2 x, d], from what _sums weighed."""
    b, rows, columns, features = y.shape
    y = y.reshape(b, rows, columns, 2, 2, features // 4)
    y = jnp.stack([y[:, :-1, :, 0], y[:, 1:, :, 1]], 2)
    y = jnp.stack([y[:, :, :, :-1, 0], y[:, :, :, 1:, 1]], 4)
    return y.reshape(b, 2 * rows - 2, 2 * columns - 2, features // 4)


class Pointwise(nn.Module):
    """A 1x1 convolution as the product that it is, which XLA's CPU backend misses."""

    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        """[..., c] -> [..., features]."""
        kernel, bias = _held(self, (1, 1, x.shape[-1], self.features))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return jnp.dot(x, kernel[0, 0]) + bias


def halve(x):
    """Mean of every 2x2 pixels: [b, y, x, c] -> [b, y / 2, x / 2, c]."""
    y = x.astype(jnp.float32)
    y = y[:, ::2] + y[:, 1::2]
    return ((y[:, :, ::2] + y[:, :, 1::2]) / 4).astype(x.dtype)


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
        x = RESIZE[self.resize](x)
        if self.resize == "up":
            h = DoubledConv(self.features, self.dtype, name="conv_1")(h, train)
        else:
            h = conv(self.features, self.dtype, "conv_1")(RESIZE[self.resize](h))
        h = convolved(h)
        rows = self.features * (2 if self.scale_shift else 1)
        time = nn.Dense(rows, dtype=self.dtype, name="time")(time)[:, None, None]
        h = self._with_time(h, time)
        h = nn.Dropout(self.dropout, deterministic=not train)(jax.nn.silu(h))
        h = conv(self.features, self.dtype, "conv_2", zero=True)(h.astype(self.dtype))
        if x.shape[-1] != self.features:
            x = Pointwise(self.features, self.dtype, name="skip")(x)
        return along_batch(x + h)

    def _with_time(self, h, time):
        norm = GroupNorm(self.groups, name="norm_2")
        if not self.scale_shift:
            return norm(h + time)
        scale, shift = jnp.split(time, 2, axis=-1)
        return norm(h) * (1 + scale) + shift
