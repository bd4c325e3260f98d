"""unCLIP §2: P(x|y) = P(x|z_i, y) P(z_i|y). Captions to pictures, stage after stage.

The stages speak unit vectors: z_i and z_t leave CLIP normalised, the prior returns a
normalised z_i. Scaling for a network happens at its door, in this file.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.clip.contrastive import Clip, normalised
from dalle2_jax.clip.image import preprocess
from dalle2_jax.components import components_of, load_component
from dalle2_jax.config import build
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.decoder.decoder import Condition, Decoder
from dalle2_jax.decoder.decoder import nothing as no_condition
from dalle2_jax.decoder.upsampler import Upsampler
from dalle2_jax.diffusion.guidance import guided
from dalle2_jax.diffusion.samplers import ddim, ddpm, denoiser, initial_noise, sample
from dalle2_jax.diffusion.schedule import rows
from dalle2_jax.errors import BadInput
from dalle2_jax.prior.best_of_two import closest
from dalle2_jax.prior.diffusion import Prior, Text, from_scaled
from dalle2_jax.prior.diffusion import nothing as no_text

CANDIDATES = 2  # unCLIP §2.2: draw two z_i, keep the one closer to z_t


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How one diffusion stage is walked (unCLIP Table 3)."""

    steps: str = "250"  # respacing: "250", "ddim25", "10,10,3,2,2", "fast27"
    guidance: float = 1.0  # 1: none, one network call per step
    eta: float = 1.0  # DDIM's eta; "ancestral" ignores it
    sampler: str = "ancestral"  # or "ddim"
    clip: float = 0.0  # bound on predicted x_0; 0: none

    def __post_init__(self):
        known = ("ancestral", "ddim")
        assert self.sampler in known, f"sampler must be one of {', '.join(known)}"


class Caption(NamedTuple):
    """What CLIP says of captions.

    tokens int32 [b, n]; pooled float32 [b, clip], unit norm; states [b, n, width];
    mask bool [b, n], true up to and including the end mark.
    """

    tokens: jax.Array
    pooled: jax.Array
    states: jax.Array
    mask: jax.Array


class UnCLIP(NamedTuple):
    """A loaded model directory; a stage that it does not hold is None."""

    clip: Any
    prior: Any
    decoder: Any
    upsampler: Any
    tokenizer: Any


def load(folder):
    """The components and tokenizer of a model directory.

    Raises:
        BadInput: the directory holds no component, or one cannot be read.
    """
    found = components_of(folder)
    if not found:
        raise BadInput(f"{folder} is no model directory: it holds no component.")
    parts = {stage: load_component(folder, stage) for stage in found}
    stages = [parts.get(s) for s in ("clip", "prior", "decoder", "upsampler")]
    return UnCLIP(*stages, tokenizer=Tokenizer.load(f"{folder}/tokenizer"))


def encode_captions(cfg, params, tokens):
    """tokens int32 [b, n] -> Caption."""
    text = Clip(cfg).apply({"params": params}, tokens, method="encode_text")
    mask = jnp.arange(tokens.shape[1]) <= tokens.argmax(-1)[:, None]
    return Caption(tokens, normalised(text.pooled), text.states, mask)


def encode_images(cfg, params, image):
    """image float32 [b, y, x, 3] in [-1, 1], any size -> z_i [b, clip], unit norm."""
    pixels = preprocess(cfg.image, image)
    z_image = Clip(cfg).apply({"params": params}, pixels, method="encode_image")
    return normalised(z_image)


def prior_text(caption):
    """The prior's view of captions."""
    keep = jnp.ones(len(caption.tokens))
    return Text(caption.pooled, caption.states, caption.mask, keep)


def decoder_condition(caption, z_image):
    """The decoder's view of captions and unit z_i [b, clip], scaled to variance 1."""
    keep = jnp.ones(len(z_image))
    return Condition(
        z_image=z_image * z_image.shape[-1] ** 0.5,
        pooled=caption.pooled,
        states=caption.states,
        tokens=caption.tokens,
        mask=caption.mask,
        keep_image=keep,
        keep_text=keep,
    )


def sample_keys(seed, first, count):
    """One key per sample: a function of (seed, sample index) alone."""
    root = jax.random.key(seed)
    index = jnp.arange(first, first + count)
    return jax.vmap(lambda i: jax.random.fold_in(root, i))(index)


def _walk(model, noise, how, x_T, keys):
    step = ddpm if how.sampler == "ancestral" else ddim(how.eta)
    denoise = denoiser(model, noise, how.clip or None)
    return sample(
        step, denoise, x_T, rows(noise.schedule, noise.steps, how.steps), keys
    )


def _stage_keys(keys, number):
    return jax.vmap(lambda k: jax.random.fold_in(k, number))(keys)


@functools.partial(jax.jit, static_argnames=("cfg", "noise", "how"))
def sample_prior(params, caption, keys, *, cfg, noise, how):
    """unCLIP §2.2: z_i given Caption, the better of two draws: [b, clip], unit norm."""
    twice = jax.tree.map(lambda x: jnp.concatenate([x] * CANDIDATES), caption)
    text = prior_text(twice)
    keys = jnp.concatenate([_stage_keys(keys, 100 + i) for i in range(CANDIDATES)])

    def predict(z_noised, t, text):
        return Prior(cfg).apply({"params": params}, z_noised, t, text)

    model = guided(predict, text, no_text(text), how.guidance)
    z = _walk(model, noise, how, initial_noise(keys, (cfg.clip,)), keys)
    z = normalised(from_scaled(cfg, params, z)).reshape(CANDIDATES, -1, cfg.clip)
    return closest(z, caption.pooled)


@functools.partial(jax.jit, static_argnames=("cfg", "noise", "how"))
def sample_decoder(params, condition, keys, *, cfg, noise, how):
    """unCLIP §2.1: pictures given Condition: float32 [b, size, size, 3] in [-1, 1]."""
    keys = _stage_keys(keys, 200)

    def predict(x_t, t, condition):
        return Decoder(cfg).apply({"params": params}, x_t, t, condition)

    null = no_condition(condition)
    model = guided(predict, condition, null, how.guidance, noise.learned_variance)
    x_T = initial_noise(keys, (cfg.size, cfg.size, 3))
    return jnp.clip(_walk(model, noise, how, x_T, keys), -1, 1)


@functools.partial(jax.jit, static_argnames=("cfg", "noise", "how"))
def sample_upsampler(params, low_res, keys, *, cfg, noise, how):
    """unCLIP §2.1: low_res [b, y, x, 3] -> [b, factor y, factor x, 3], in [-1, 1]."""
    keys = _stage_keys(keys, 300)

    def model(x_t, t):
        return Upsampler(cfg).apply({"params": params}, x_t, t, low_res)

    shape = (low_res.shape[1] * cfg.factor, low_res.shape[2] * cfg.factor, 3)
    x_T = initial_noise(keys, shape)
    return jnp.clip(_walk(model, noise, how, x_T, keys), -1, 1)


def sampling_of(component):
    """The way of sampling that a component was configured with."""
    return build(Sampling, component.config.get("sampling", {}), "sampling")


def run_stage(function, component, given, keys, how=None):
    """One of the three samplers above on a loaded component.

    Args:
        function: sample_prior, sample_decoder or sample_upsampler.
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
    caption = jax.jit(encode_captions, static_argnums=0)(
        model.clip.cfg, model.clip.params, tokens
    )
    if route == "prior":
        z_image = run_stage(sample_prior, model.prior, caption, keys, how.get("prior"))
    if route in ("text", "none"):
        z_image = caption.pooled
    condition = decoder_condition(caption, z_image)
    if route == "none":
        condition = condition._replace(keep_image=jnp.zeros(len(z_image)))
    decoder = model.decoder
    image = run_stage(sample_decoder, decoder, condition, keys, how.get("decoder"))
    if model.upsampler is not None:
        upsampler, way = model.upsampler, how.get("upsampler")
        image = run_stage(sample_upsampler, upsampler, image, keys, way)
    return image


def generate(model, captions, seed=0, batch=64, how=None, route="prior", z_image=None):
    """Pictures for captions; sample i depends on (model, caption, seed, i) alone.

    Args:
        model: UnCLIP with at least clip, decoder, and the prior when route is "prior".
        captions: list of n strings.
        seed: of the run.
        batch: most samples per device program; the parts are made equally large, the
            last one is padded.
        how, route, z_image: as in `draw`; z_image [n, clip].

    Yields:
        uint8 [up to batch, y, x, 3], in the order of the captions.
    """
    need = ("clip", "decoder") + (("prior",) if route == "prior" else ())
    for stage in need:
        if getattr(model, stage) is None:
            raise BadInput(f"the model holds no {stage}; train or import one first.")
    context = model.clip.cfg.text.context
    tokens = model.tokenizer.encode(list(captions), context)
    parts = math.ceil(len(tokens) / batch)
    batch = math.ceil(len(tokens) / parts)
    for first in range(0, len(tokens), batch):
        part = _padded(tokens[first : first + batch], batch)
        z = None if z_image is None else _padded(z_image[first : first + batch], batch)
        keys = sample_keys(seed, first, batch)
        image = draw(model, jnp.asarray(part), keys, how or {}, z, route)
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
