"""The U-Net of ADM, GLIDE and unCLIP: one skeleton for decoder and upsamplers.

Dhariwal and Nichol (2021) and Nichol et al. (2021). Levels are numbered by resolution:
down_1 and up_1 work on the same grid, half of level 0's.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from dalle2_jax.errors import BadInput
from dalle2_jax.layers.attention import attend, heads_of
from dalle2_jax.layers.embeddings import TimeEmbedding, depth_to_space, space_to_depth
from dalle2_jax.layers.place import along_batch, placed
from dalle2_jax.layers.recompute import recomputed
from dalle2_jax.layers.resblock import DoubledConv, GroupNorm, ResBlock, conv


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Sizes of a U-Net; channels, multiples, depth as in unCLIP Table 3.

    attend: downsample factors with attention (1 = the U-Net's first grid); () leaves
    attention out of the middle too. heads > 0 overrides head_width. in_channels: of
    x_t alone. classes > 0: a label embedding. updown: how resolution changes.
    patch > 1: pixels are folded into channels in front and unfolded at the end.
    """

    channels: int
    multiples: tuple[float, ...]
    depth: int
    attend: tuple[int, ...] = ()
    head_width: int = 64
    heads: int = 0
    in_channels: int = 3
    out_channels: int = 3
    context_width: int = 0
    classes: int = 0
    scale_shift: bool = True
    updown: str = "resblock"
    groups: int = 32
    dropout: float = 0.0
    patch: int = 1
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        assert self.updown in ("resblock", "conv"), "updown is resblock or conv"
        for level in range(len(self.multiples)):
            width = self.width(level)
            assert width % self.groups == 0, f"groups must divide width {width}"
            attends = 2**level in self.attend
            assert not attends or width % self.heads_at(width) == 0, "heads and width"

    def width(self, level):
        """Channels of a level."""
        return round(self.channels * self.multiples[level])

    def heads_at(self, width):
        """Heads of an attention over `width` channels."""
        return self.heads or max(width // self.head_width, 1)

    @property
    def time_width(self):
        """Width of the time embedding, and of what is added to it."""
        return 4 * self.channels


class SpatialAttention(nn.Module):
    """Pixels attend to context and pixels in one softmax, context keys in front."""

    cfg: UNetConfig

    @nn.compact
    def __call__(self, x, context=None, mask=None):
        """x [b, y, x, c], context [b, n, d], mask [b, n] -> [b, y, x, c]."""
        cfg, width, heads = self.cfg, x.shape[-1], self.cfg.heads_at(x.shape[-1])

        def dense(name, y):
            return heads_of(nn.Dense(width, dtype=cfg.dtype, name=name)(y), heads)

        pixels = GroupNorm(cfg.groups, name="norm")(x).reshape(len(x), -1, width)
        pixels = pixels.astype(cfg.dtype)
        q, k, v = (dense(name, pixels) for name in "qkv")
        if cfg.context_width:
            k = jnp.concatenate([dense("context_k", context), k], axis=1)
            v = jnp.concatenate([dense("context_v", context), v], axis=1)
            if mask is not None:
                seen = jnp.ones(pixels.shape[:2], bool)
                mask = jnp.concatenate([mask, seen], axis=1)[:, None, None]
        h = attend(q, k, v, mask).reshape(x.shape)
        zeros = nn.initializers.zeros
        out = nn.Dense(width, dtype=cfg.dtype, kernel_init=zeros, name="out")
        return along_batch(x + out(h))


def _block(cfg, level, name, resize="same"):
    """A ResBlock of a level, rematerialised where the config says so."""
    kind = placed(ResBlock, cfg.dtype)
    kind = recomputed(kind, cfg.remat, static_argnums=(3,))
    return kind(
        cfg.width(level),
        resize=resize,
        scale_shift=cfg.scale_shift,
        groups=cfg.groups,
        dropout=cfg.dropout,
        dtype=cfg.dtype,
        name=name,
    )


def _attention(cfg, name):
    kind = placed(SpatialAttention, cfg.dtype)
    kind = recomputed(kind, cfg.remat)
    return kind(cfg, name=name)


class Down(nn.Module):
    """One level on the way down: depth x (block, attention), then half the size."""

    cfg: UNetConfig
    level: int

    @nn.compact
    def __call__(self, x, time, context, mask, train):
        """Returns every activation that the way up will see again, in order."""
        cfg, level, skips = self.cfg, self.level, []
        for i in range(cfg.depth):
            x = _block(cfg, level, f"block_{i}")(x, time, train)
            if 2**level in cfg.attend:
                x = _attention(cfg, f"attention_{i}")(x, context, mask)
            skips.append(x)
        if level == len(cfg.multiples) - 1:
            return skips
        if cfg.updown == "resblock":
            x = _block(cfg, level, "down", "down")(x, time, train)
        else:
            x = conv(cfg.width(level), cfg.dtype, "down", stride=2)(x)
        return [*skips, x]


class Middle(nn.Module):
    """block, attention (unless the U-Net has none), block."""

    cfg: UNetConfig

    @nn.compact
    def __call__(self, x, time, context, mask, train):
        """x [b, y, x, c] -> the same shape."""
        cfg, level = self.cfg, len(self.cfg.multiples) - 1
        x = _block(cfg, level, "block_0")(x, time, train)
        if cfg.attend:
            x = _attention(cfg, "attention")(x, context, mask)
        return _block(cfg, level, "block_1")(x, time, train)


class Up(nn.Module):
    """One level on the way up: (depth + 1) x (block, attention), then double size."""

    cfg: UNetConfig
    level: int

    @nn.compact
    def __call__(self, x, skips, time, context, mask, train):
        """Takes its skips from the end of the list `skips`; returns x."""
        cfg, level = self.cfg, self.level
        for i in range(cfg.depth + 1):
            x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = _block(cfg, level, f"block_{i}")(x, time, train)
            if 2**level in cfg.attend:
                x = _attention(cfg, f"attention_{i}")(x, context, mask)
        if level == 0:
            return x
        if cfg.updown == "resblock":
            return _block(cfg, level, "up", "up")(x, time, train)
        return DoubledConv(cfg.width(level), cfg.dtype, name="up")(x, train)


class Head(nn.Module):
    """norm, SiLU, zero-initialised convolution to the output; float32."""

    cfg: UNetConfig

    @nn.compact
    def __call__(self, x):
        """[b, y, x, c] -> float32 [b, y, x, out_channels * patch ** 2]."""
        x = jax.nn.silu(GroupNorm(self.cfg.groups, name="norm")(x))
        features = self.cfg.out_channels * self.cfg.patch**2
        return conv(features, "float32", "conv", zero=True)(x)


class UNet(nn.Module):
    """x_t, t and conditions -> the prediction."""

    cfg: UNetConfig

    @nn.compact
    def __call__(
        self, x, t, embedding=None, context=None, mask=None, label=None, train=False
    ):
        """One evaluation.

        x float [b, y, x, in_channels]; t [b]; embedding [b, 4 * channels], added to the
        time embedding; context [b, n, context_width] with mask [b, n] (True = look);
        label int [b]. Returns float32 [b, y, x, out_channels].

        Raises:
            BadInput: the image's shape does not fit the sizes.
        """
        cfg = self.cfg
        _check(cfg, x.shape)
        width = cfg.time_width
        time = TimeEmbedding(cfg.channels, width, width, name="time")(t)
        if cfg.classes:
            time = time + nn.Embed(cfg.classes, width, name="label")(label)
        if embedding is not None:
            time = time + embedding
        time = along_batch(jax.nn.silu(time))
        x = space_to_depth(x, cfg.patch) if cfg.patch > 1 else x
        x = along_batch(conv(cfg.width(0), cfg.dtype, "stem")(x.astype(cfg.dtype)))
        skips = [x]
        levels = range(len(cfg.multiples))
        for level in levels:
            down = Down(cfg, level, name=f"down_{level}")
            skips += down(skips[-1], time, context, mask, train)
        x = Middle(cfg, name="middle")(skips[-1], time, context, mask, train)
        for level in reversed(levels):
            up = Up(cfg, level, name=f"up_{level}")
            x = up(x, skips, time, context, mask, train)
        x = Head(cfg, name="head")(x)
        return depth_to_space(x, cfg.patch) if cfg.patch > 1 else x


def _check(cfg, shape):
    multiple = cfg.patch * 2 ** (len(cfg.multiples) - 1)
    if shape[-1] != cfg.in_channels or shape[1] % multiple or shape[2] % multiple:
        raise BadInput(
            f"The U-Net got an image of shape {shape}; it needs {cfg.in_channels} "
            f"channels and sides that are multiples of {multiple}."
        )
