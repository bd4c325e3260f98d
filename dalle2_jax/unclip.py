"""unCLIP §2: P(x|y) = P(x|z_i, y) P(z_i|y). Captions to pictures, stage after stage.

The stages speak unit vectors: z_i and z_t leave CLIP normalised, the prior returns a
normalised z_i (unless ClipConfig.unit is off). Scaling for a network happens at its
door, in this file.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.clip.contrastive import Clip
from dalle2_jax.clip.image import preprocess
from dalle2_jax.components import components_of, load_component
from dalle2_jax.config import build
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.decoder.decoder import Condition, Decoder
from dalle2_jax.decoder.decoder import nothing as no_condition
from dalle2_jax.decoder.upsampler import Upsampler
from dalle2_jax.diffusion.guidance import guided
from dalle2_jax.diffusion.samplers import initial_noise
from dalle2_jax.diffusion.walk import (
    Sampling,
    interval_of,
    sample_keys,
    stage_keys,
    walk,
)
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.embeddings import normalised
from dalle2_jax.prior.autoregressive import codes_of, draw_codes
from dalle2_jax.prior.best_of_two import closest
from dalle2_jax.prior.codes import decode
from dalle2_jax.prior.dalle2_pytorch import sample_z_image
from dalle2_jax.prior.diffusion import Prior, Text, from_scaled
from dalle2_jax.prior.diffusion import nothing as no_text
from dalle2_jax.shard.mesh import MeshConfig, batch_sharding, make_mesh

PRIORS = ("prior", "prior_dalle2_pytorch", "autoregressive")  # the first one serves


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


class UnCLIP(NamedTuple):
    """A loaded model directory; a stage that it does not hold is None.

    Where there are several priors, z_i comes from the first of PRIORS.
    """

    clip: Any = None
    prior: Any = None
    prior_dalle2_pytorch: Any = None
    autoregressive: Any = None
    decoder: Any = None
    upsampler: Any = None
    upsampler_last: Any = None
    upsampler_2: Any = None
    tokenizer: Any = None


def load(folder):
    """The components and tokenizer of a model directory.

    Raises:
        BadInput: the directory holds no component, or one cannot be read, or its two
            networks for one upsampler have not the same sizes.
    """
    found = [stage for stage in components_of(folder) if stage in UnCLIP._fields]
    if not found:
        raise BadInput(f"{folder} is no model directory: it holds no component.")
    parts = {stage: load_component(folder, stage) for stage in found}
    first, last = parts.get("upsampler"), parts.get("upsampler_last")
    if last is not None and (first is None or first.cfg != last.cfg):
        raise BadInput(
            f"{folder}/upsampler_last/config.json does not fit {folder}/upsampler: "
            "both take steps of one walk; import them together."
        )
    return UnCLIP(**parts, tokenizer=Tokenizer.load(f"{folder}/tokenizer"))


def encode_captions(cfg, params, tokens):
    """tokens int32 [b, n] -> Caption."""
    text = Clip(cfg).apply({"params": params}, tokens, method="encode_text")
    mask = jnp.arange(tokens.shape[1]) <= tokens.argmax(-1)[:, None]
    pooled = normalised(text.pooled) if cfg.unit else text.pooled
    return Caption(tokens, pooled, text.states, mask)


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

    last: parameters of another network of the same sizes, for the last step (Karlo).
    """
    keys = stage_keys(keys, 300)

    def network(params):
        return lambda x_t, t: Upsampler(cfg).apply({"params": params}, x_t, t, low_res)

    shape = (low_res.shape[1] * cfg.factor, low_res.shape[2] * cfg.factor, 3)
    x_T = initial_noise(keys, shape)
    end = None if last is None else network(last)
    return jnp.clip(walk(network(params), noise, how, x_T, keys, end), -1, 1)


def _like(empty, batch):
    """The empty caption [1, ...], repeated to the length of a batch."""
    if empty is None:
        raise BadInput(
            "guidance by this component contrasts with the empty caption: give "
            "`empty`, or set guidance to 1."
        )
    count = len(batch.pooled)
    return jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), empty)


def sampling_of(component):
    """The way of sampling that a component was configured with."""
    return build(Sampling, component.config.get("sampling", {}), "sampling")


def run_stage(function, component, given, keys, how=None):
    """One of the samplers above on a loaded component.

    Args:
        function: sample_prior, sample_autoregressive, sample_decoder, sample_upsampler.
        component: what `load` returned for that stage.
        given: Caption, Condition or low-resolution pictures.
        keys: [b] keys of the samples.
        how: Sampling; default: the component's own.
    """
    how = how or sampling_of(component)
    call = functools.partial(function, component.params, given, keys)
    return call(cfg=component.cfg, noise=component.noise, how=how)


def draw(model, tokens, keys, how, z_image=None, route="prior"):
    """One batch through the whole stack.

    Args:
        model: UnCLIP.
        tokens: int32 [b, n].
        keys: [b].
        how: dict stage -> Sampling; a stage not named uses its own.
        z_image: unit [b, clip], used when route is "image".
        route: where z_i comes from: "prior" (the full stack), "text" (z_t in its
            place), "image" (given), "none" (caption only). unCLIP §5.1.

    Returns:
        Pictures float32 [b, y, x, 3] in [-1, 1], of the last stage present.
    """
    caption, empty = _captions(model, tokens)
    if route == "prior":
        z_image = draw_z_image(model, caption, keys, how, empty)
    if route in ("text", "none"):
        z_image = caption.pooled
    condition = decoder_condition(caption, z_image, model.clip.cfg.unit)
    if route == "none":
        condition = condition._replace(keep_image=jnp.zeros(len(z_image)))
    function = functools.partial(sample_decoder, empty=empty)
    image = run_stage(function, model.decoder, condition, keys, how.get("decoder"))
    return upsample(model, image, keys, how)


def draw_z_image(model, caption, keys, how, empty=None):
    """z_i [b, clip] of Captions from the prior that the model holds.

    Args: as in `draw`; caption and empty as in `sample_prior`.
    """
    stage = prior_of(model)
    function = {
        "prior": functools.partial(sample_prior, empty=empty),
        "prior_dalle2_pytorch": sample_z_image,
        "autoregressive": sample_autoregressive,
    }[stage]
    return run_stage(function, getattr(model, stage), caption, keys, how.get(stage))


def prior_of(model):
    """The stage that z_i comes from: the first of PRIORS that the model holds."""
    held = (stage for stage in PRIORS if getattr(model, stage) is not None)
    return next(held, PRIORS[0])


def need(model, *stages):
    """Raises BadInput naming the first of the stages that the model does not hold."""
    for stage in stages:
        if getattr(model, stage) is None:
            raise BadInput(f"the model holds no {stage}; train or import one first.")


def upsample(model, image, keys, how):
    """Pictures of the decoder through every upsampler that the model holds.

    Args: as in `draw`; image float32 [b, y, x, 3] in [-1, 1].
    """
    first, last, second = model.upsampler, model.upsampler_last, model.upsampler_2
    if first is not None:
        params = None if last is None else last.params
        function = functools.partial(sample_upsampler, last=params)
        image = run_stage(function, first, image, keys, how.get("upsampler"))
    if second is not None:
        keys, way = stage_keys(keys, 400), how.get("upsampler_2")
        image = run_stage(sample_upsampler, second, image, keys, way)
    return image


def _captions(model, tokens):
    """Caption of the tokens [b, n], and that of the empty caption, [1, ...]."""
    blank = model.tokenizer.encode([""], tokens.shape[1])
    encode = jax.jit(encode_captions, static_argnums=0)
    both = jnp.concatenate([jnp.asarray(tokens), blank])
    found = encode(model.clip.cfg, model.clip.params, both)
    return (
        jax.tree.map(lambda x: x[:-1], found),
        jax.tree.map(lambda x: x[-1:], found),
    )


def generate(model, captions, seed=0, batch=64, how=None, route="prior", z_image=None):
    """Pictures for captions; sample i depends on (model, caption, seed, i) alone.

    Args:
        model: UnCLIP with at least clip, decoder, and a prior when route is "prior".
        captions: list of n strings.
        seed: of the run.
        batch: most samples per program, spread over the devices of this process; the
            parts are made equally large, the last one is padded.
        how, route, z_image: as in `draw`; z_image [n, clip].

    Yields:
        uint8 [up to batch, y, x, 3], in the order of the captions.
    """
    need(model, "clip", "decoder", *([prior_of(model)] if route == "prior" else []))
    context = model.clip.cfg.text.context
    tokens = model.tokenizer.encode(list(captions), context)
    devices = jax.local_devices()
    layout = batch_sharding(make_mesh(MeshConfig(), devices))
    parts = math.ceil(len(tokens) / batch)
    batch = math.ceil(len(tokens) / (parts * len(devices))) * len(devices)
    for first in range(0, len(tokens), batch):
        given = [tokens] if z_image is None else [tokens, z_image]
        given = [_padded(x[first : first + batch], batch) for x in given]
        given += [sample_keys(seed, first, batch)]
        part, *z, keys = (jax.device_put(x, layout) for x in given)
        image = draw(model, part, keys, how or {}, *z or [None], route)
        yield to_uint8(image)[: len(tokens) - first]


def to_uint8(image):
    """[-1, 1] -> uint8 on the host, rounded once, half up."""
    return np.asarray(jnp.floor((image + 1) * 127.5 + 0.5), np.uint8)


def from_uint8(image):
    """uint8 -> float32 in [-1, 1]."""
    return image.astype(jnp.float32) / 127.5 - 1


def _padded(x, batch):
    short = batch - len(x)
    return x if not short else np.concatenate([x, np.repeat(x[-1:], short, axis=0)])
