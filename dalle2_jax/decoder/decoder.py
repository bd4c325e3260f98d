"""unCLIP §2.1: the decoder, GLIDE's U-Net that also hears the CLIP image embedding z_i.

z_i enters twice: projected and added to the time embedding, and as extra context tokens
in front of the caption's. A third way, `spatial_map`, is an addition to the paper.
Without z_i the same class is GLIDE (its own caption transformer, a smaller picture,
known pixels) and ADM (a label).
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dalle2_jax.decoder.caption import CaptionConfig, CaptionTransformer
from dalle2_jax.decoder.upsampler import enlarge
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.transformer import ACTIVATIONS, LayerNorm
from dalle2_jax.layers.unet import UNet, UNetConfig


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the decoder.

    size: pixels of a side. clip: width of z_i, 0 = none. tokens: context tokens made
    from z_i. text_width: width of caption states given from outside (0 = none),
    projected to the context; or caption: the decoder's own transformer, as wide as
    unet.context_width.
    pooled_text: the caption's vector joins the time embedding too. null: what replaces
    a dropped z_i. spatial_map: channels of a map of size x size made from z_i by an MLP
    and concatenated to x_t; not in the paper, it teaches small decoders shapes.
    low_res: side of a smaller picture that is heard too, enlarged and concatenated, 0 =
    none; round_low_res: to the 256 values of a byte first. inpaint: known pixels and
    their mask are concatenated. unet.classes > 0: a label is heard.
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
    low_res: int = 0
    round_low_res: bool = False
    inpaint: bool = False

    def __post_init__(self):
        assert self.null in ("learned", "zeros"), "null is learned or zeros"
        assert not (self.text_width and self.caption), "text_width or caption, not both"
        assert self.clip or not self.spatial_map, "spatial_map is made from z_i: clip"
        context = self.unet.context_width
        texts = self.text_width or self.caption
        needed = bool(self.clip and self.tokens or texts) and bool(self.unet.attend)
        assert context or not needed, "unet.context_width must be given"
        width = self.caption.width if self.caption else context
        assert width == context, "caption.width must equal unet.context_width"


class Condition(NamedTuple):
    """What the decoder hears.

    z_image [b, clip], unit norm times sqrt(clip) for our own models, [b, 0] for those
    without; pooled [b, d]; states [b, n, text_width] or tokens int32 [b, n]; mask bool
    [b, n], True = a real token; keep_image and keep_text [b]: 1 = use, 0 = drop, None =
    use; low_res [b, y', x', c]; known [b, y, x, c] with is_known [b, y, x, 1], 1 = a
    known pixel, None = nothing is known; label int [b]. Parts that a decoder does not
    have are None.
    """

    z_image: jax.Array
    pooled: jax.Array | None = None
    states: jax.Array | None = None
    tokens: jax.Array | None = None
    mask: jax.Array | None = None
    keep_image: jax.Array | None = None
    keep_text: jax.Array | None = None
    low_res: jax.Array | None = None
    known: jax.Array | None = None
    is_known: jax.Array | None = None
    label: jax.Array | None = None


def example(cfg, batch=1, tokens=8):
    """Shapes of a Decoder's arguments, for `init_params(Decoder(cfg), seed, *...)`.

    tokens: length of captions given from outside; parameters do not depend on it.
    """

    def shape(*sizes, dtype=jnp.float32):
        return jax.ShapeDtypeStruct((batch, *sizes), dtype)

    tokens = cfg.caption.context if cfg.caption else tokens
    text = bool(cfg.caption or cfg.text_width)
    pooled = cfg.pooled_text and not cfg.caption
    colours, low = cfg.unet.in_channels, cfg.low_res
    cond = Condition(
        z_image=shape(cfg.clip),
        pooled=shape(cfg.clip) if pooled else None,
        states=shape(tokens, cfg.text_width) if cfg.text_width else None,
        tokens=shape(tokens, dtype=jnp.int32) if cfg.caption else None,
        mask=shape(tokens, dtype=jnp.bool_) if text else None,
        keep_image=shape(),
        keep_text=shape(),
        low_res=shape(low, low, colours) if low else None,
        known=shape(cfg.size, cfg.size, colours) if cfg.inpaint else None,
        is_known=shape(cfg.size, cfg.size, 1) if cfg.inpaint else None,
        label=shape(dtype=jnp.int32) if cfg.unet.classes else None,
    )
    image = shape(cfg.size, cfg.size, colours)
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


def pictures(cfg, x_t, cond):
    """What stands beside x_t: [known pixels, their mask] and [the enlarged low_res].

    GLIDE's order of channels. Known pixels are shown only where the mask is 1.

    Raises:
        BadInput: low_res is not given.
    """
    parts = []
    if cfg.inpaint:
        nowhere = jnp.zeros((*x_t.shape[:3], 1), x_t.dtype)
        is_known = nowhere if cond.is_known is None else cond.is_known
        known = jnp.zeros_like(x_t) if cond.known is None else cond.known
        parts += [known * is_known, is_known]
    if cfg.low_res:
        low = cond.low_res
        if low is None:
            raise BadInput("The condition lacks low_res, which this decoder needs.")
        if cfg.round_low_res:
            low = jnp.round((low + 1) * 127.5) / 127.5 - 1
        parts.append(enlarge(low, x_t.shape, "bilinear"))
    return parts


def for_inpainting(params, cfg):
    """A plain decoder's parameters with a stem for known pixels and mask, all zeros.

    The first output of the inpainting decoder is that of the plain one (GLIDE, section
    4.1). params: of a Decoder whose cfg has inpaint=False; returns a new tree.
    """
    kernel = jnp.asarray(params["unet"]["stem"]["kernel"])
    colours = cfg.unet.in_channels
    new = jnp.zeros((*kernel.shape[:2], colours + 1, kernel.shape[3]), kernel.dtype)
    parts = [kernel[:, :, :colours], new, kernel[:, :, colours:]]
    stem = {**params["unet"]["stem"], "kernel": jnp.concatenate(parts, axis=2)}
    return {**params, "unet": {**params["unet"], "stem": stem}}


class Decoder(nn.Module):
    """P(x | z_i, y): the U-Net's parameters under unet/, the conditions' beside it."""

    cfg: DecoderConfig

    @nn.compact
    def __call__(self, x_t, t, cond, train=False):
        """x_t float [b, y, x, c], t [b], cond: Condition -> float32 [b, y, x, out].

        With train=True and dropout > 0 it needs a "dropout" key.
        """
        cfg, beside = self.cfg, pictures(self.cfg, x_t, cond)
        context, mask, time = self._text(cond)
        tokens = None
        if cfg.clip:
            z_image = self._z_image(cond)
            image_time, tokens = self._image(z_image)
            time = image_time if time is None else image_time + time
            beside += [self._map(z_image)] if cfg.spatial_map else []
        if tokens is not None and context is not None:
            seen = jnp.ones(tokens.shape[:2], bool)
            mask = jnp.concatenate([seen, mask], axis=1)
            context = jnp.concatenate([tokens, context], axis=1)
        elif tokens is not None:
            context = tokens
        self.sow("intermediates", "time", time)
        self.sow("intermediates", "context", context)
        channels = cfg.unet.in_channels + sum(part.shape[-1] for part in beside)
        unet = UNet(dataclasses.replace(cfg.unet, in_channels=channels), name="unet")
        x = jnp.concatenate([x_t, *beside], axis=-1)
        return unet(x, t, time, context, mask, cond.label, train)

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
