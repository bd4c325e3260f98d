"""unCLIP §2: the noise-aware CLIP of GLIDE (section 2.4), which guides diffusion.

Its image tower hears the step t beside the noised picture: the embedding of t stands
where CLIP has the class token. The gradient of its logit is GLIDE's CLIP guidance.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from dalle2_jax.clip.image import ImageTower, ImageTowerConfig, preprocess
from dalle2_jax.clip.text import TextTower, TextTowerConfig
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.embeddings import normalised


@dataclasses.dataclass(frozen=True)
class NoisedClipConfig:
    """clip: width of the joint space. times: steps of the noise process.

    scale: of the logits; the released model has CLIP's cap, not a learnt one.
    """

    clip: int
    image: ImageTowerConfig
    text: TextTowerConfig
    times: int = 1000
    scale: float = 100.0
    dtype: str = "float32"

    def __post_init__(self):
        plain = (self.image.head, self.image.blocks) == ("class", ())
        assert plain, "the image tower of a noised CLIP is a ViT with head=class"


class NoisedClip(nn.Module):
    """Two towers; parameters under times/, image/ and text/."""

    cfg: NoisedClipConfig

    def setup(self):
        cfg = self.cfg
        init = nn.initializers.normal(0.02)
        self.times = nn.Embed(cfg.times, cfg.image.width, embedding_init=init)
        self.image = ImageTower(cfg.image, cfg.clip, cfg.dtype)
        self.text = TextTower(cfg.text, cfg.clip, cfg.dtype)

    def encode_image(self, x_t, t):
        """Noised pictures [b, size, size, 3] around [-1, 1], t int [b] -> [b, clip].

        Not normalised.

        Raises:
            BadInput: pictures of another size; noise must not be resampled.
        """
        size = self.cfg.image.size
        if x_t.shape[1:3] != (size, size):
            raise BadInput(
                f"the noised CLIP sees {size} x {size} pixels and noise must not be "
                f"resized; these pictures are {x_t.shape[1]} x {x_t.shape[2]}."
            )
        token = self.times(t.astype(jnp.int32))
        return self.image(preprocess(self.cfg.image, x_t), token).pooled

    def encode_text(self, tokens, lengths=None):
        """tokens int32 [b, n], lengths int32 [b] or None -> [b, clip].

        lengths: how many tokens each caption has; None: up to its largest id.
        Not normalised.
        """
        return self.text(tokens, ends=None if lengths is None else lengths - 1).pooled

    def __call__(self, x_t, t, tokens):
        """Noised pictures, their steps, captions -> (z_image, z_text, log scale).

        What `contrastive_loss` takes; the vectors are unit, float32 [b, clip].
        """
        z_image = normalised(self.encode_image(x_t, t))
        z_text = normalised(self.encode_text(tokens))
        return z_image, z_text, jnp.log(self.cfg.scale)


def example(cfg, batch=1):
    """Shapes of a NoisedClip's arguments, for `init_params`."""
    pixels = (batch, cfg.image.size, cfg.image.size, 3)
    tokens = jax.ShapeDtypeStruct((batch, cfg.text.context), jnp.int32)
    t = jax.ShapeDtypeStruct((batch,), jnp.int32)
    return jax.ShapeDtypeStruct(pixels, jnp.float32), t, tokens


def caption_gradient(cfg, params, z_text, strength=1.0):
    """GLIDE section 2.4: strength * grad_x (scale * <z_i(x, t), z_t>).

    Args:
        cfg: NoisedClipConfig.
        params: of a NoisedClip.
        z_text: unit [b, clip], of the captions wanted.
        strength: a number, or an array [b].

    Returns:
        gradient(x_t, t) -> float32 of x_t's shape, as `diffusion.guidance` takes it;
        x_t in units of [-1, 1], t [b].
    """
    scales = jnp.broadcast_to(strength * cfg.scale, (len(z_text),))

    def logit(x_t, t):
        encode = NoisedClip(cfg).apply
        z_image = encode({"params": params}, x_t, t, method="encode_image")
        return jnp.sum(scales * jnp.sum(normalised(z_image) * z_text, -1))

    return jax.grad(logit)
