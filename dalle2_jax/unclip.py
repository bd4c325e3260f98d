"""unCLIP §2: P(x|y) = P(x|z_i, y) P(z_i|y). Captions to pictures, stage after stage.

The public face of a model: its directory, its samples. The stages are in stages.py.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.components import components_of, load_component
from dalle2_jax.config import build
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.diffusion.walk import Sampling, sample_keys, stage_keys
from dalle2_jax.errors import BadInput
from dalle2_jax.prior.dalle2_pytorch import sample_z_image
from dalle2_jax.shard.mesh import MeshConfig, batch_sharding, make_mesh
from dalle2_jax.stages import (
    Caption,
    decoder_condition,
    encode_captions,
    encode_images,
    from_uint8,
    guided_decoder,
    prior_text,
    sample_autoregressive,
    sample_decoder,
    sample_prior,
    sample_upsampler,
    to_uint8,
)

__all__ = [  # a model, its samples, and the stages they are made of
    "Caption",
    "Sampling",
    "UnCLIP",
    "decoder_condition",
    "draw",
    "draw_z_image",
    "encode_captions",
    "encode_images",
    "from_uint8",
    "generate",
    "guided_decoder",
    "load",
    "need",
    "prior_of",
    "prior_text",
    "run_stage",
    "sample_autoregressive",
    "sample_decoder",
    "sample_keys",
    "sample_prior",
    "sample_upsampler",
    "sampling_of",
    "stage_keys",
    "to_uint8",
    "upsample",
]

PRIORS = ("prior", "prior_dalle2_pytorch", "autoregressive")  # the first one serves


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

    @classmethod
    def load(cls, folder, dtype=None):
        """The model of a directory; arguments as of the function `load`."""
        return load(folder, dtype)

    def generate(self, captions, seed=0, how=None, batch=64):
        """Pictures for n captions: uint8 [n, y, x, 3]; arguments as of `generate`."""
        return np.concatenate(list(generate(self, captions, seed, batch, how)))


def load(folder, dtype=None):
    """The components and tokenizer of a model directory.

    Args:
        folder: the model directory.
        dtype: of the weights in memory and of what the networks compute in, "bfloat16"
            or "float32"; default: both as saved.

    Raises:
        BadInput: the directory holds no component, or one cannot be read, or its two
            networks for one upsampler have not the same sizes.
    """
    found = [stage for stage in components_of(folder) if stage in UnCLIP._fields]
    if not found:
        raise BadInput(f"{folder} is no model directory: it holds no component.")
    parts = {stage: load_component(folder, stage, dtype) for stage in found}
    first, last = parts.get("upsampler"), parts.get("upsampler_last")
    if last is not None and (first is None or first.cfg != last.cfg):
        raise BadInput(
            f"{folder}/upsampler_last/config.json does not fit {folder}/upsampler: "
            "both take steps of one walk; import them together."
        )
    return UnCLIP(**parts, tokenizer=Tokenizer.load(f"{folder}/tokenizer"))


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


def _padded(x, batch):
    short = batch - len(x)
    return x if not short else np.concatenate([x, np.repeat(x[-1:], short, axis=0)])
