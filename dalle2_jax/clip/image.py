"""unCLIP §2: CLIP's image tower (App. C: a ViT), from pixels to the joint space."""

import dataclasses
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.errors import BadInput
from dalle2_jax.layers.embeddings import space_to_depth
from dalle2_jax.layers.resblock import conv
from dalle2_jax.layers.transformer import (
    ACTIVATIONS,
    LayerNorm,
    TransformerConfig,
    transformer,
)

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class ImageTowerConfig:
    """Sizes of the image tower.

    Published weights have stem="patch" and head="class". For small pictures there are
    stem="conv" (log2(patch) stride-2 convolutions) and head="tokens" (all tokens,
    flattened, through an MLP): a class token needs far more steps to learn shapes.
    blocks: of the four groups of a ResNet (clip/resnet.py), none for a ViT; width is
    then that of the first group, patch 32 and depth the sum of blocks.
    mean, std: of pixels in [0, 1].
    """

    size: int
    patch: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    activation: str = "quick_gelu"
    stem: str = "patch"
    head: str = "class"
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD
    remat: bool = False
    blocks: tuple[int, ...] = ()

    def __post_init__(self):
        resnet = (len(self.blocks), self.patch, sum(self.blocks)) == (4, 32, self.depth)
        assert not self.blocks or resnet, "a ResNet has 4 blocks, patch 32, their depth"
        assert self.stem in ("patch", "conv"), "stem is patch or conv"
        assert self.head in ("class", "tokens"), "head is class or tokens"
        assert self.size % self.patch == 0, "patch must divide size"
        power = self.patch & (self.patch - 1) == 0
        assert self.stem == "patch" or power, "a conv stem needs patch = 2, 4, 8, ..."


class ImageFeatures(NamedTuple):
    """pooled [b, clip], not normalised; states [b, n, width] before the final norm."""

    pooled: jax.Array
    states: jax.Array


def preprocess(cfg, image):
    """The tower's view of an image: resized with antialiasing, mean and std removed.

    cfg: ImageTowerConfig; image float [b, y, x, 3] in [-1, 1], any size.
    Returns float32 [b, size, size, 3].

    Raises:
        BadInput: cfg is None.
    """
    if cfg is None:
        raise BadInput("this CLIP has no image tower; import one that has both towers.")
    shape = (len(image), cfg.size, cfg.size, image.shape[-1])
    if image.shape != shape:
        image = jnp.clip(jax.image.resize(image, shape, "bicubic"), -1, 1)
    mean, std = np.float32(cfg.mean), np.float32(cfg.std)
    return ((image.astype(jnp.float32) + 1) / 2 - mean) / std


class PatchStem(nn.Module):
    """A convolution whose stride is its size, as one product.

    Unlike a convolution it stays local where every device has its own kernel (SAM).
    """

    patch: int
    width: int

    @nn.compact
    def __call__(self, x):
        """x [b, y, x, c] -> [b, y / patch, x / patch, width], without bias."""
        shape = (self.patch, self.patch, x.shape[-1], self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        x = space_to_depth(x, self.patch)
        return x @ kernel.reshape(-1, self.width).astype(x.dtype)


class ImageTower(nn.Module):
    """clip: width of the joint space."""

    cfg: ImageTowerConfig
    clip: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, pixels, token=None):
        """pixels float [b, size, size, 3], preprocessed -> ImageFeatures in float32.

        token: [b, width] in place of the learned class token, or None.
        """
        cfg = self.cfg
        x = self._stem(pixels.astype(self.dtype))
        x = x.reshape(len(x), -1, cfg.width)
        if cfg.head == "class":
            if token is None:
                token = self.param("class_token", _SMALL, (cfg.width,))
            token = jnp.broadcast_to(token, (len(x), cfg.width)).astype(x.dtype)
            x = jnp.concatenate([token[:, None], x], axis=1)
        x = x + self.param("positions", _SMALL, x.shape[1:])
        x = LayerNorm(name="norm_in")(x)
        x = transformer(_stack(cfg, self.dtype), x).astype(jnp.float32)
        return ImageFeatures(self._head(x), x)

    def _stem(self, x):
        """[b, size, size, 3] -> [b, size / patch, size / patch, width]."""
        cfg = self.cfg
        if cfg.stem == "patch":
            return PatchStem(cfg.patch, cfg.width, name="stem")(x)
        halvings = int(math.log2(cfg.patch))
        for i in range(halvings):
            features = max(cfg.width >> (halvings - 1 - i), 8)
            x = conv(features, x.dtype, f"stem_{i}", stride=2)(x)
            x = ACTIVATIONS["gelu"](x) if i < halvings - 1 else x
        return x

    def _head(self, x):
        """Tokens [b, n, width] -> [b, clip]."""
        if self.cfg.head == "class":
            x = LayerNorm(name="norm_out")(x[:, 0])
            return nn.Dense(self.clip, use_bias=False, name="projection")(x)
        x = LayerNorm(name="norm_out")(x).reshape(len(x), -1)
        x = nn.Dense(max(256, self.clip), name="hidden")(x)
        return nn.Dense(self.clip, name="projection")(ACTIVATIONS["gelu"](x))


_SMALL = nn.initializers.normal(0.02)


def _stack(cfg, dtype):
    names = ("width", "depth", "heads", "mlp_ratio", "activation", "remat")
    return TransformerConfig(*(getattr(cfg, name) for name in names), dtype=dtype)
