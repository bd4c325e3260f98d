"""unCLIP §2.1: ADM's classifier of noisy pictures, for guidance by its gradient.

The way down of the U-Net, then attention pooling (Dhariwal and Nichol 2021, section 4).
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from dalle2_jax.layers.attention import attend, heads_of
from dalle2_jax.layers.embeddings import TimeEmbedding
from dalle2_jax.layers.resblock import GroupNorm, conv
from dalle2_jax.layers.unet import Down, Middle, UNetConfig


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """Sizes of a classifier.

    size: pixels of a side. unet: its way down; out_channels is the number of classes.
    """

    size: int
    unet: UNetConfig

    def __post_init__(self):
        factor = 2 ** (len(self.unet.multiples) - 1)
        assert self.size % factor == 0, f"size must be a multiple of {factor}"
        assert self.unet.patch == 1, "unet.patch must be 1"

    @property
    def tokens(self):
        """Pixels of the smallest grid."""
        return (self.size // 2 ** (len(self.unet.multiples) - 1)) ** 2


def example(cfg, batch=1):
    """Shapes of what a Classifier is called with: `init_params(..., seed, *...)`."""
    shape = (batch, cfg.size, cfg.size, cfg.unet.in_channels)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return x, jax.ShapeDtypeStruct((batch,), jnp.int32)


class AttentionPool(nn.Module):
    """The mean token attends to itself and every pixel; its answer is projected."""

    cfg: ClassifierConfig

    @nn.compact
    def __call__(self, x):
        """x float32 [b, y, x, c] -> float32 [b, classes]."""
        cfg, width = self.cfg, x.shape[-1]
        heads = cfg.unet.heads_at(width)
        x = x.reshape(len(x), -1, width)
        x = jnp.concatenate([x.mean(1, keepdims=True), x], axis=1)
        small = nn.initializers.normal(0.02)
        x = x + self.param("positions", small, (cfg.tokens + 1, width))
        given = {"q": x[:, :1], "k": x, "v": x}
        q, k, v = (heads_of(nn.Dense(width, name=n)(given[n]), heads) for n in "qkv")
        pooled = attend(q, k, v).reshape(len(x), width)
        return nn.Dense(cfg.unet.out_channels, name="out")(pooled)


class Classifier(nn.Module):
    """Logits of p(label | x_t)."""

    cfg: ClassifierConfig

    @nn.compact
    def __call__(self, x_t, t, train=False):
        """x_t float [b, size, size, c], t [b] -> float32 [b, classes]."""
        unet = self.cfg.unet
        width = unet.time_width
        time = jax.nn.silu(TimeEmbedding(unet.channels, width, width, name="time")(t))
        x = conv(unet.width(0), unet.dtype, "stem")(x_t.astype(unet.dtype))
        for level in range(len(unet.multiples)):
            x = Down(unet, level, name=f"down_{level}")(x, time, None, None, train)[-1]
        x = Middle(unet, name="middle")(x, time, None, None, train)
        x = jax.nn.silu(GroupNorm(unet.groups, name="norm")(x))
        return AttentionPool(self.cfg, name="pool")(x)


def log_prob(cfg, params, x_t, t, label):
    """log p(label | x_t) [b] of int labels [b]."""
    logits = Classifier(cfg).apply({"params": params}, x_t, t)
    log_probs = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(log_probs, label[:, None], axis=-1)[:, 0]


def gradient(cfg, params, label, scale=1.0):
    """(x_t, t) -> scale * grad log p(label | x_t), as `diffusion.guidance` wants it."""

    def total(x_t, t):
        return scale * log_prob(cfg, params, x_t, t, label).sum()

    return jax.grad(total)
