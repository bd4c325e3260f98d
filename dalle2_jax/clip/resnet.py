"""unCLIP §2: CLIP's convolutional image towers, RN50 to RN50x64 (CLIP, section 2.4).

A ResNet-D with a stem of three convolutions, a blur (mean of 2x2) in front of every
stride, and attention in place of the last mean. BatchNorm is there in its form for
inference: the stored statistics are parameters that have no gradient.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dalle2_jax.clip.image import ImageFeatures, ImageTowerConfig
from dalle2_jax.layers.attention import attend, heads_of
from dalle2_jax.layers.resblock import halve


class BatchNorm(nn.Module):
    """BatchNorm with stored statistics, float32 inside and out."""

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x):
        """x [..., c] of any float dtype -> float32 [..., c]."""
        ones, zeros, shape = nn.initializers.ones, nn.initializers.zeros, x.shape[-1:]
        scale, bias = self.param("scale", ones, shape), self.param("bias", zeros, shape)
        mean = jax.lax.stop_gradient(self.param("mean", zeros, shape))
        variance = jax.lax.stop_gradient(self.param("variance", ones, shape))
        gain = scale * jax.lax.rsqrt(variance + self.epsilon)
        return (x.astype(jnp.float32) - mean) * gain + bias


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution, the last to four times the channels, and a skip.

    features: channels of the first two. halved: both paths are blurred to half size.
    """

    features: int
    halved: bool
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        """x [b, y, x, c] -> [b, y', x', 4 features]."""
        wide, shrink = 4 * self.features, halve if self.halved else lambda x: x
        y = _conv(self.features, 1, x, self.dtype, "in")
        y = _conv(self.features, 3, jax.nn.relu(y), self.dtype, "mid")
        y = _conv(wide, 1, shrink(jax.nn.relu(y)), self.dtype, "out")
        if self.halved or x.shape[-1] != wide:
            x = _conv(wide, 1, shrink(x), self.dtype, "skip")
        return jax.nn.relu(x + y)


class AttentionPool(nn.Module):
    """The mean of all tokens asks, all tokens and their mean answer: one vector.

    heads: must divide the channels. clip: width of the result.
    """

    heads: int
    clip: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        """x [b, n, c] -> float32 [b, clip]."""
        x = jnp.concatenate([x.mean(1, keepdims=True), x], axis=1)
        init = nn.initializers.normal(0.02)
        x = (x + self.param("positions", init, x.shape[1:])).astype(self.dtype)
        q, k, v = (
            heads_of(nn.Dense(x.shape[-1], dtype=self.dtype, name=name)(y), self.heads)
            for name, y in {"q": x[:, :1], "k": x, "v": x}.items()
        )
        pooled = attend(q, k, v).reshape(len(x), -1)
        return nn.Dense(self.clip, name="out")(pooled.astype(jnp.float32))


class ResNetTower(nn.Module):
    """cfg: ImageTowerConfig with `blocks`; clip: width of the joint space."""

    cfg: ImageTowerConfig
    clip: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, pixels):
        """pixels float [b, size, size, 3], preprocessed -> ImageFeatures in float32.

        The states are the last feature map, [b, (size / 32)^2, 32 width].
        """
        cfg, half = self.cfg, self.cfg.width // 2
        x = pixels.astype(self.dtype)
        for i, features in enumerate((half, half, cfg.width)):
            x = _conv(features, 3, x, self.dtype, f"stem_{i}", stride=2 - (i > 0))
            x = jax.nn.relu(x)
        x = halve(x)
        for group, count in enumerate(cfg.blocks):
            for i in range(count):
                features, halved = cfg.width << group, group > 0 and i == 0
                name = f"group_{group}_{i}"
                x = Bottleneck(features, halved, self.dtype, name=name)(x)
        states = x.reshape(len(x), -1, x.shape[-1])
        pool = AttentionPool(cfg.heads, self.clip, self.dtype, name="pool")
        return ImageFeatures(pool(states), states.astype(jnp.float32))


def _conv(features, size, x, dtype, name, stride=1):
    """Convolution without bias, then BatchNorm; float32 [b, y', x', features]."""
    pad = size // 2
    kernel = nn.Conv(
        features,
        (size, size),
        stride,
        padding=pad,
        use_bias=False,
        dtype=dtype,
        name=f"conv_{name}",
    )
    return BatchNorm(name=f"norm_{name}")(kernel(x))
