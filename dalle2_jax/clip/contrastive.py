"""unCLIP §2: CLIP, the space that is inverted: both towers and their loss."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.clip.image import ImageTower, ImageTowerConfig
from dalle2_jax.clip.resnet import ResNetTower
from dalle2_jax.clip.text import TextTower, TextTowerConfig
from dalle2_jax.layers.embeddings import normalised

MAX_LOG_SCALE = float(
    np.log(100)
)  # CLIP section 2.5: logits are never scaled beyond 100


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """clip: width of the joint space. dtype: compute dtype of both towers.

    unit: the stages built on it hear unit vectors; False (Karlo): as CLIP gives them.
    image: None for the text half of a published pipeline, which can only be sampled.
    """

    clip: int
    image: ImageTowerConfig | None
    text: TextTowerConfig
    dtype: str = "float32"
    unit: bool = True


class Clip(nn.Module):
    """Two towers and a temperature; parameters under image/, text/ and log_scale."""

    cfg: ClipConfig

    def setup(self):
        cfg = self.cfg
        if cfg.image is not None:
            tower = ResNetTower if cfg.image.blocks else ImageTower
            self.image = tower(cfg.image, cfg.clip, cfg.dtype)
        self.text = TextTower(cfg.text, cfg.clip, cfg.dtype)
        start = nn.initializers.constant(np.log(1 / 0.07))
        self.log_scale = self.param("log_scale", start, ())

    def encode_image(self, pixels):
        """Preprocessed pixels [b, size, size, 3] -> [b, clip], not normalised."""
        return self.image(pixels).pooled

    def image_states(self, pixels):
        """Preprocessed pixels -> all tokens before the final norm, [b, n, width]."""
        return self.image(pixels).states

    def encode_text(self, tokens, mask=None):
        """tokens int32 [b, n], mask bool [b, n] or None -> TextFeatures."""
        return self.text(tokens, mask)

    def __call__(self, pixels, tokens):
        """Preprocessed pixels and tokens -> (z_image, z_text, log_scale).

        z_image, z_text: unit vectors, float32 [b, clip]; z_image is None without an
        image tower.
        """
        z_text = normalised(self.encode_text(tokens).pooled)
        if self.cfg.image is None:
            return None, z_text, self.log_scale
        return normalised(self.encode_image(pixels)), z_text, self.log_scale


def example(cfg, batch=1):
    """Shapes of a Clip's arguments, for `init_params(Clip(cfg), seed, *...)`."""
    tokens = jax.ShapeDtypeStruct((batch, cfg.text.context), jnp.int32)
    if cfg.image is None:
        return None, tokens
    pixels = (batch, cfg.image.size, cfg.image.size, 3)
    return jax.ShapeDtypeStruct(pixels, jnp.float32), tokens


def contrastive_loss(z_image, z_text, log_scale, axis=None):
    """Symmetric cross-entropy over all pairs of the batch (CLIP, figure 3).

    z_image, z_text: float32 unit vectors [b, clip]; log_scale scalar, capped at ln 100.
    axis: name of a mapped axis over which the batch is split, or None: then b are the
    examples of this part, the others come from `all_gather`, which gradients pass.
    Returns (loss, metrics); metrics: accuracy of retrieval both ways, the scale.
    """
    scale = jnp.exp(jnp.minimum(log_scale, MAX_LOG_SCALE))
    here = jnp.arange(len(z_image))
    if axis is None:
        texts = scale * jnp.einsum("id,td->it", z_image, z_text)
        own, images = here, texts.T
    else:
        all_image, all_text = jax.lax.all_gather((z_image, z_text), axis, tiled=True)
        texts = scale * jnp.einsum("id,td->it", z_image, all_text)
        images = scale * jnp.einsum("td,id->ti", z_text, all_image)
        own = here + jax.lax.axis_index(axis) * len(here)
    to_text = -jax.nn.log_softmax(texts, axis=1)[here, own]
    to_image = -jax.nn.log_softmax(images, axis=1)[here, own]
    metrics = {
        "image_to_text": jnp.mean(jnp.argmax(texts, 1) == own),
        "text_to_image": jnp.mean(jnp.argmax(images, 1) == own),
        "scale": scale,
    }
    return jnp.mean(to_text + to_image) / 2, metrics
