"""unCLIP §2.1: the decoder, GLIDE's U-Net that also hears the CLIP image embedding z_i.

z_i enters twice: projected and added to the time embedding, and as extra context tokens
in front of the caption's. A third way, `spatial_map`, is an addition to the paper.
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dalle2_jax.decoder.caption import CaptionConfig, CaptionTransformer
from dalle2_jax.layers.transformer import ACTIVATIONS, LayerNorm
from dalle2_jax.layers.unet import UNet, UNetConfig


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the decoder.

    size: pixels of a side. clip: width of z_i. tokens: context tokens made from z_i.
    text_width: width of caption states given from outside (0 = none), projected to the
    context; or caption: the decoder's own transformer, as wide as unet.context_width.
    pooled_text: the caption's vector joins the time embedding too. null: what replaces
    a dropped z_i. spatial_map: channels of a map of size x size made from z_i by an MLP
    and concatenated to x_t; not in the paper, it teaches small decoders shapes.
    """

    size: int
    unet: UNetConfig
    clip: int
    tokens: int = 4
    text_width: int = 0
    caption: CaptionConfig | None = None
    pooled_text: bool = False
    spatial_map: int = 0
    null: str = "learned"

    def __post_init__(self):
        assert self.null in ("learned", "zeros"), "null is learned or zeros"
        assert not (self.text_width and self.caption), "text_width or caption, not both"
        context = self.unet.context_width
        texts = self.text_width or self.caption
        needed = bool(self.tokens or texts) and bool(self.unet.attend)
        assert context or not needed, "unet.context_width must be given"
        width = self.caption.width if self.caption else context
        assert width == context, "caption.width must equal unet.context_width"


class Condition(NamedTuple):
    """What the decoder hears.

    z_image [b, clip], unit norm times sqrt(clip) for our own models; pooled [b, d];
    states [b, n, text_width] or tokens int32 [b, n]; mask bool [b, n], True = a real
    token; keep_image and keep_text [b]: 1 = use, 0 = drop, None = use. Parts that a
    decoder does not have are None.
    """

    z_image: jax.Array
    pooled: jax.Array | None = None
    states: jax.Array | None = None
    tokens: jax.Array | None = None
    mask: jax.Array | None = None
    keep_image: jax.Array | None = None
    keep_text: jax.Array | None = None


def example(cfg, batch=1, tokens=8):
    """Shapes of a Decoder's arguments, for `init_params(Decoder(cfg), seed, *...)`.

    tokens: length of captions given from outside; parameters do not depend on it.
    """

    def shape(*sizes, dtype=jnp.float32):
        return jax.ShapeDtypeStruct((batch, *sizes), dtype)

    tokens = cfg.caption.context if cfg.caption else tokens
    text = bool(cfg.caption or cfg.text_width)
    pooled = cfg.pooled_text and not cfg.caption
    cond = Condition(
        z_image=shape(cfg.clip),
        pooled=shape(cfg.clip) if pooled else None,
        states=shape(tokens, cfg.text_width) if cfg.text_width else None,
        tokens=shape(tokens, dtype=jnp.int32) if cfg.caption else None,
        mask=shape(tokens, dtype=jnp.bool_) if text else None,
        keep_image=shape(),
        keep_text=shape(),
    )
    image = shape(cfg.size, cfg.size, cfg.unet.in_channels)
    return image, shape(dtype=jnp.int32), cond


def everything(cond):
    """The same condition with both keeps written out as 1."""
    ones = jnp.ones(len(cond.z_image), jnp.float32)
    return cond._replace(keep_image=ones, keep_text=ones)


def nothing(cond):
    """The same batch without z_i and without captions: both keeps 0."""
    zeros = jnp.zeros(len(cond.z_image), jnp.float32)
    return cond._replace(keep_image=zeros, keep_text=zeros)


def forget(cond, key, image=0.1, text=0.5):
    """Drops z_i and caption independently, for guidance (unCLIP §2.1).

    key: one typed key, or one per sample [b]. image, text: the chances to drop.
    """
    batch = len(cond.z_image)
    if not key.ndim:
        key = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))
    chance = jax.vmap(lambda k: jax.random.uniform(k, (2,)))(key)
    cond = cond if cond.keep_image is not None else everything(cond)
    return cond._replace(
        keep_image=cond.keep_image * (chance[:, 0] >= image),
        keep_text=cond.keep_text * (chance[:, 1] >= text),
    )


class Decoder(nn.Module):
    """P(x | z_i, y): the U-Net's parameters under unet/, the conditions' beside it."""

    cfg: DecoderConfig

    @nn.compact
    def __call__(self, x_t, t, cond, train=False):
        """x_t float [b, y, x, c], t [b], cond: Condition -> float32 [b, y, x, out].

        With train=True and dropout > 0 it needs a "dropout" key.
        """
        cfg = self.cfg
        z_image = self._z_image(cond)
        time, tokens = self._image(z_image)
        context, mask, pooled = self._text(cond)
        if pooled is not None:
            time = time + pooled
        if tokens is not None and context is not None:
            seen = jnp.ones(tokens.shape[:2], bool)
            mask = jnp.concatenate([seen, mask], axis=1)
            context = jnp.concatenate([tokens, context], axis=1)
        elif tokens is not None:
            context = tokens
        self.sow("intermediates", "time", time)
        self.sow("intermediates", "context", context)
        unet = cfg.unet
        if cfg.spatial_map:
            x_t = jnp.concatenate([x_t, self._map(z_image)], axis=-1)
            channels = unet.in_channels + cfg.spatial_map
            unet = dataclasses.replace(unet, in_channels=channels)
        return UNet(unet, name="unet")(x_t, t, time, context, mask, train=train)

    def _z_image(self, cond):
        """z_i, or what stands for it where it is dropped."""
        cfg, null = self.cfg, jnp.zeros(self.cfg.clip)
        if cfg.null == "learned":
            null = self.param("null_image", nn.initializers.normal(0.02), (cfg.clip,))
        if cond.keep_image is None:
            return cond.z_image
        return jnp.where(cond.keep_image.astype(bool)[:, None], cond.z_image, null)

    def _image(self, z_image):
        """z_image [b, clip] -> time [b, 4 channels], tokens [b, n, d] or None."""
        cfg = self.cfg
        time = nn.Dense(cfg.unet.time_width, name="image_time")(z_image)
        if not (cfg.tokens and cfg.unet.attend):
            return time, None
        tokens = nn.Dense(cfg.tokens * cfg.unet.context_width, name="image_tokens")
        return time, tokens(z_image).reshape(len(z_image), cfg.tokens, -1)

    def _text(self, cond):
        """The caption -> states [b, n, d], mask [b, n], vector [b, 4 channels] or None.

        Given states: a dropped caption is absent from attention and adds no vector. Own
        transformer: it becomes the learned empty caption.
        """
        cfg, keep = self.cfg, cond.keep_text
        time = (
            nn.Dense(cfg.unet.time_width, name="text_time") if cfg.pooled_text else None
        )
        if cfg.caption:
            mask = cond.mask if keep is None else cond.mask & (keep > 0)[:, None]
            states = CaptionTransformer(cfg.caption, name="caption")(cond.tokens, mask)
            vector = time(states[:, -1]) if time else None
            return states, jnp.ones(mask.shape, bool), vector
        keep = jnp.ones(len(cond.z_image)) if keep is None else keep
        vector = time(cond.pooled) * (keep > 0)[:, None] if time else None
        if not cfg.text_width:
            return None, None, vector
        states = nn.Dense(cfg.unet.context_width, name="text_states")(cond.states)
        states = LayerNorm(name="text_norm")(states)
        mask = jnp.ones(states.shape[:2], bool) if cond.mask is None else cond.mask
        return states, mask.astype(bool) & (keep > 0)[:, None], vector

    def _map(self, z_image):
        """z_image [b, clip] -> a picture [b, size, size, spatial_map]."""
        cfg, x = self.cfg, z_image
        for i in range(2):
            x = ACTIVATIONS["gelu"](nn.Dense(256, name=f"map_{i}")(x))
        x = nn.Dense(cfg.size * cfg.size * cfg.spatial_map, name="map_2")(x)
        return x.reshape(len(x), cfg.size, cfg.size, cfg.spatial_map)
