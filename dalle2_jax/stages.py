"""unCLIP §2: the sampler of each stage, one jitted program, and what CLIP says.

The stages speak unit vectors: z_i and z_t leave CLIP normalised, the prior returns a
normalised z_i (unless ClipConfig.unit is off). Scaling for a network happens at its
door, in this file.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.clip.contrastive import Clip
from dalle2_jax.clip.image import preprocess
from dalle2_jax.clip.noised import NoisedClip, NoisedClipConfig, caption_gradient
from dalle2_jax.decoder.classifier import ClassifierConfig
from dalle2_jax.decoder.classifier import gradient as label_gradient
from dalle2_jax.decoder.decoder import Condition, Decoder
from dalle2_jax.decoder.decoder import nothing as no_condition
from dalle2_jax.decoder.upsampler import Upsampler
from dalle2_jax.diffusion.guidance import guided
from dalle2_jax.diffusion.samplers import initial_noise
from dalle2_jax.diffusion.walk import interval_of, stage_keys, walk
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.embeddings import normalised
from dalle2_jax.prior.autoregressive import codes_of, draw_codes
from dalle2_jax.prior.best_of_two import closest
from dalle2_jax.prior.codes import decode
from dalle2_jax.prior.diffusion import Prior, Text, from_scaled
from dalle2_jax.prior.diffusion import nothing as no_text

JUDGES = {NoisedClipConfig: caption_gradient, ClassifierConfig: label_gradient}


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params"],
    meta_fields=["cfg", "scale"],
)
@dataclasses.dataclass(frozen=True)
class Judge:
    """A network that hears noise and guides by its gradient.

    cfg: NoisedClipConfig or ClassifierConfig. scale: of the gradient.
    """

    params: Any
    cfg: Any
    scale: float


class Caption(NamedTuple):
    """What CLIP says of captions, or any other conditioning sequence of a prior.

    tokens int32 [b, n], None where the states are not a caption's; pooled float32
    [b, clip], unit norm; states [b, n, width]; mask bool [b, n], true up to and
    including the end mark.
    """

    tokens: jax.Array | None
    pooled: jax.Array
    states: jax.Array
    mask: jax.Array


def encode_captions(cfg, params, tokens):
    """tokens int32 [b, n] -> Caption."""
    text = Clip(cfg).apply({"params": params}, tokens, method="encode_text")
    mask = jnp.arange(tokens.shape[1]) <= tokens.argmax(-1)[:, None]
    pooled = normalised(text.pooled) if cfg.unit else text.pooled
    return Caption(tokens, pooled, text.states, mask)


@functools.partial(jax.jit, static_argnames="cfg")
def read_captions(params, tokens, keys, *, cfg):
    """`encode_captions` as a stage; it draws nothing. params: of CLIP's text alone."""
    return encode_captions(cfg, params, tokens)


@functools.partial(jax.jit, static_argnames="cfg")
def read_guide(params, tokens, keys, *, cfg):
    """What a noise-aware CLIP wants to see, unit [b, clip]; it draws nothing."""
    encode = NoisedClip(cfg).apply
    return normalised(encode({"params": params}, tokens, method="encode_text"))


def encode_images(cfg, params, image):
    """image float32 [b, y, x, 3] in [-1, 1], any size -> z_i [b, clip], unit norm."""
    pixels = preprocess(cfg.image, image)
    z_image = Clip(cfg).apply({"params": params}, pixels, method="encode_image")
    return normalised(z_image) if cfg.unit else z_image


def prior_text(caption, null="learned"):
    """The prior's view of captions; null: PriorConfig.null."""
    keep = jnp.ones(len(caption.pooled)) if null == "learned" else None
    return Text(caption.pooled, caption.states, caption.mask, keep)


def decoder_condition(caption, z_image, unit=True):
    """The decoder's view of captions and z_i [b, clip].

    unit: z_i has norm 1 and is scaled to variance 1; else it is left as it is.
    """
    keep = jnp.ones(len(z_image))
    return Condition(
        z_image=z_image * z_image.shape[-1] ** 0.5 if unit else z_image,
        pooled=caption.pooled,
        states=caption.states,
        tokens=caption.tokens,
        mask=caption.mask,
        keep_image=keep,
        keep_text=keep,
    )


@functools.partial(jax.jit, static_argnames=("cfg", "noise", "how"))
def sample_prior(params, caption, keys, *, cfg, noise, how, empty=None):
    """unCLIP §2.2: z_i of each caption, the best of `how.candidates` draws.

    It needs no CLIP and no caption: Caption(None, pooled, states, mask) with states
    [b, cfg.context, cfg.text_width] of any origin and pooled [b, cfg.clip] will do.

    Args:
        params: of Prior(cfg).
        caption: Caption of b samples.
        keys: [b]; sample i depends on caption i and key i alone.
        cfg, noise, how: PriorConfig, Noise and Sampling, static.
        empty: Caption [1, ...] of the empty caption, what guidance contrasts with where
            cfg.null or how.empty ask for it.

    Returns:
        float32 [b, clip], unit norm; a whitened prior gives the length too.

    Raises:
        BadInput: guidance needs `empty` and it is not there.
    """
    count = how.candidates
    many = jax.tree.map(lambda x: jnp.concatenate([x] * count), caption)
    text, null = prior_text(many, cfg.null), None
    keys = jnp.concatenate([stage_keys(keys, 100 + i) for i in range(count)])

    def predict(z_noised, t, text):
        return Prior(cfg).apply({"params": params}, z_noised, t, text)

    if how.guidance != 1 and (how.empty or cfg.null == "empty"):
        null = prior_text(_like(empty, many), cfg.null)
    elif how.guidance != 1:
        null = no_text(text)
    within = interval_of(how, noise)
    model = guided(predict, text, null, how.guidance, False, within, how.rescale)
    z = walk(model, noise, how, initial_noise(keys, (cfg.clip,)), keys)
    z = from_scaled(cfg, params, z)
    z = (z if cfg.whiten else normalised(z)).reshape(count, -1, cfg.clip)
    return closest(z, caption.pooled) if count > 1 else z[0]


@functools.partial(jax.jit, static_argnames=("cfg", "noise", "how"))
def sample_autoregressive(params, caption, keys, *, cfg, noise, how):
    """unCLIP §2.2: z_i of each Caption, code after code: [b, clip], unit norm.

    Arguments as for sample_prior; noise is not used. Of `how` count guidance,
    temperature and percentile.
    """
    ways = how.guidance, how.temperature, how.percentile
    keys = stage_keys(keys, 100)
    codes = draw_codes(params, prior_text(caption), keys, cfg, *ways)
    return normalised(decode(codes_of(params), codes))


@functools.partial(jax.jit, static_argnames=("cfg", "noise", "how"))
def sample_decoder(params, condition, keys, *, cfg, noise, how, empty=None, x_T=None):
    """unCLIP §2.1: pictures given Condition: float32 [b, size, size, 3] in [-1, 1].

    empty: Caption [1, ...] of the empty caption; with how.empty guidance contrasts with
    it instead of with no caption at all. x_T: where to start, default noise of `keys`.
    """
    keys = stage_keys(keys, 200)
    model = guided_decoder(params, condition, cfg, noise, how, empty)
    if x_T is None:
        x_T = initial_noise(keys, (cfg.size, cfg.size, 3))
    return jnp.clip(walk(model, noise, how, x_T, keys), -1, 1)


@functools.partial(jax.jit, static_argnames=("cfg", "noise", "how"))
def sample_judged(params, given, keys, *, cfg, noise, how, judges, empty=None):
    """`sample_decoder`, pushed towards what judges find likely (ADM, GLIDE 2.4).

    given: (Condition, wanted), wanted with a tree of arrays [b, ...] for each judge:
    unit z_t of a noise-aware CLIP, int labels of a classifier. judges: tuple of Judge.
    """
    condition, wanted = given
    keys = stage_keys(keys, 200)
    model = guided_decoder(params, condition, cfg, noise, how, empty)
    pushes = [
        JUDGES[type(j.cfg)](j.cfg, j.params, w, j.scale)
        for j, w in zip(judges, wanted, strict=True)
    ]

    def gradient(x_t, t):
        return sum(push(x_t, t) for push in pushes)

    x_T = initial_noise(keys, (cfg.size, cfg.size, 3))
    return jnp.clip(walk(model, noise, how, x_T, keys, gradient=gradient), -1, 1)


def guided_decoder(params, condition, cfg, noise, how, empty=None):
    """model(x_t, t) of a decoder under a Condition, arguments as in sample_decoder."""

    def predict(x_t, t, condition):
        return Decoder(cfg).apply({"params": params}, x_t, t, condition)

    null = no_condition(condition)
    if how.empty and how.guidance != 1:
        blank = _like(empty, condition)
        null = condition._replace(**blank._asdict(), keep_image=null.keep_image)
    ways = noise.learned_variance, interval_of(how, noise), how.rescale
    return guided(predict, condition, null, how.guidance, *ways)


@functools.partial(jax.jit, static_argnames=("cfg", "noise", "how"))
def sample_upsampler(params, low_res, keys, *, cfg, noise, how, last=None):
    """unCLIP §2.1: low_res [b, y, x, 3] -> [b, factor y, factor x, 3], in [-1, 1].

    Of any size: what the U-Net cannot halve is continued by its last row and column,
    and cut off again. last: parameters of another network of the same sizes, for the
    last step (Karlo).
    """
    keys = stage_keys(keys, 300)
    rows, columns = (side * cfg.factor for side in low_res.shape[1:3])
    low_res = continued(low_res, cfg)

    def network(params):
        return lambda x_t, t: Upsampler(cfg).apply({"params": params}, x_t, t, low_res)

    shape = (low_res.shape[1] * cfg.factor, low_res.shape[2] * cfg.factor, 3)
    x_T = initial_noise(keys, shape)
    end = None if last is None else network(last)
    image = walk(network(params), noise, how, x_T, keys, end)
    return jnp.clip(image[:, :rows, :columns], -1, 1)


def continued(low_res, cfg):
    """low_res [b, y, x, c], its last row and column repeated to sides that halve."""
    multiple = cfg.unet.patch * 2 ** (len(cfg.unet.multiples) - 1)
    multiple //= math.gcd(multiple, cfg.factor)
    more = [(0, -side % multiple) for side in low_res.shape[1:3]]
    if not any(after for _, after in more):
        return low_res
    return jnp.pad(low_res, [(0, 0), *more, (0, 0)], mode="edge")


def _like(empty, batch):
    """The empty caption [1, ...], repeated to the length of a batch."""
    if empty is None:
        raise BadInput(
            "guidance by this component contrasts with the empty caption: give "
            "`empty`, or set guidance to 1."
        )
    count = len(batch.pooled)
    return jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), empty)


def to_uint8(image):
    """[-1, 1] -> uint8 on the host, rounded once, half up."""
    return np.asarray(jnp.floor((image + 1) * 127.5 + 0.5), np.uint8)


def from_uint8(image):
    """uint8 -> float32 in [-1, 1]."""
    return image.astype(jnp.float32) / 127.5 - 1
