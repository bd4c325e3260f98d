"""unCLIP §2: which stages follow one another, and what each of them is given.

A stage is a Work: a jitted sampler, its weights and its settings. How a Work is run, at
once or chunk by chunk with its weights on the device for that long, is the caller's.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dalle2_jax.components import STAGES
from dalle2_jax.config import build
from dalle2_jax.diffusion.schedule import rows
from dalle2_jax.diffusion.walk import Sampling, stage_keys
from dalle2_jax.errors import BadInput
from dalle2_jax.prior.dalle2_pytorch import sample_z_image
from dalle2_jax.shard.flops import flops_of
from dalle2_jax.stages import (
    Caption,
    Judge,
    decoder_condition,
    read_captions,
    read_guide,
    sample_autoregressive,
    sample_decoder,
    sample_judged,
    sample_prior,
    sample_upsampler,
)

PRIORS = {  # stage -> sampler; the first one that a model holds serves
    "prior": sample_prior,
    "prior_dalle2_pytorch": sample_z_image,
    "autoregressive": sample_autoregressive,
}
SAMPLED = (*PRIORS, "decoder", "upsampler", "upsampler_2")  # stages with a Sampling
ROUTES = ("prior", "text", "image", "none")


class Work(NamedTuple):
    """A stage to be run: function(params, given, keys, **static, **shared).

    stage: its name. function: jitted. params: its weights. static: keywords that the
    program is compiled for. shared: keywords that are arrays, the same for every
    sample. fold: number that the keys are folded with first, None = as they are.
    """

    stage: str
    function: Callable
    params: Any
    static: dict
    shared: dict = {}
    fold: int | None = None

    def __call__(self, given, keys):
        """One batch: given, a tree of arrays [b, ...], and keys [b]."""
        keys = keys if self.fold is None else stage_keys(keys, self.fold)
        return self.function(self.params, given, keys, **self.static, **self.shared)


class Asked(NamedTuple):
    """What is wanted of n samples.

    tokens int32 [n, context], of the prior and, without `told`, of the decoder; blank
    int32 [1, context], the empty caption; told: tokens for the decoder; z_image unit
    [n, clip], for the route "image"; guide: tokens of the noise-aware CLIP; label int32
    [n], of the classifier.
    """

    tokens: Any
    blank: Any
    told: Any = None
    z_image: Any = None
    guide: Any = None
    label: Any = None


def cascade(model, asked, run, how, route="prior"):
    """unCLIP §2: everything up to the last stage is run; the last one is returned.

    Args:
        model: UnCLIP.
        asked: Asked.
        run: run(work, given) -> the stage's output for all samples.
        how: dict stage -> Sampling; a stage not named uses its own.
        route: where z_i comes from: "prior" (the full stack), "text" (z_t in its
            place), "image" (given), "none" (caption only). unCLIP §5.1.

    Returns:
        (Work, given) that make the pictures, float32 [b, y, x, 3] in [-1, 1].
    """
    if route not in ROUTES:
        raise BadInput(f"the route {route!r} is none of {', '.join(ROUTES)}.")
    caption, told, empty = captions_read(model, asked, run)
    z_image = asked.z_image
    if route == "prior":
        z_image = run(prior_work(model, how, empty), caption)
    if route in ("text", "none"):
        z_image = caption.pooled
    condition = decoder_condition(told, z_image, model.clip.cfg.unit)
    if route == "none":
        condition = condition._replace(keep_image=jnp.zeros(len(z_image)))
    work, given = decoder_work(model, condition, how, empty, (asked, run))
    for following in upsampler_works(model, how):
        work, given = following, run(work, given)
    return work, given


def captions_read(model, asked, run):
    """Caption of the prior's tokens, of the decoder's, and of the empty caption [1]."""
    parts = [asked.tokens, asked.blank]
    parts[1:1] = [] if asked.told is None else [asked.told]
    params = {k: v for k, v in model.clip.params.items() if k != "image"}
    static = {"cfg": model.clip.cfg}
    work = Work("clip", read_captions, params, static)
    found, count = run(work, jnp.concatenate(parts)), len(asked.tokens)
    first, told, empty = (
        jax.tree.map(lambda x, part=part: x[part], found)
        for part in (slice(count), slice(-1 - count, -1), slice(-1, None))
    )
    return Caption(*first), Caption(*told), Caption(*empty)


def prior_work(model, how, empty=None):
    """z_i [b, clip] of Captions. empty: Caption [1, ...], for guidance."""
    stage = prior_of(model)
    part = getattr(model, stage)
    shared = {"empty": empty} if stage == "prior" else {}
    return Work(stage, PRIORS[stage], part.params, static_of(part, how, stage), shared)


def decoder_work(model, condition, how, empty=None, reading=None):
    """(Work, given) of the decoder under a Condition.

    reading: (Asked, run) where the Sampling may ask for the gradient of judges.
    """
    part, static = model.decoder, static_of(model.decoder, how, "decoder")
    shared, way = {"empty": empty}, static["how"]
    if not (way.clip_guidance or way.classifier_guidance):
        return Work("decoder", sample_decoder, part.params, static, shared), condition
    judges, wanted = judged(model, way, *reading)
    shared["judges"] = judges
    work = Work("decoder", sample_judged, part.params, static, shared)
    return work, (condition, wanted)


def judged(model, way, asked, run):
    """The judges that a Sampling asks for, and what they want of every sample.

    Raises:
        BadInput: the model holds no such component, or it sees other sizes of picture.
    """
    judges, wanted = [], []
    if way.clip_guidance:
        part = seeing(model, "noised_clip")
        params = {k: v for k, v in part.params.items() if k == "text"}
        work = Work("noised_clip", read_guide, params, {"cfg": part.cfg})
        wanted.append(run(work, asked.guide))
        judges.append(Judge(part.params, part.cfg, way.clip_guidance))
    if way.classifier_guidance:
        part = seeing(model, "classifier")
        wanted.append(asked.label)
        judges.append(Judge(part.params, part.cfg, way.classifier_guidance))
    return tuple(judges), tuple(wanted)


def seeing(model, stage):
    """The component of a judge, which must know the decoder's noise and picture size.

    Raises:
        BadInput: it is not there, or its pictures or their noise are others.
    """
    need(model, stage)
    part = getattr(model, stage)
    if part.noise is not None:
        theirs, ours = (
            f"{noise.schedule} noise of {noise.steps} steps"
            for noise in (part.noise, model.decoder.noise)
        )
        if theirs != ours:
            raise BadInput(
                f"the {stage} was trained with {theirs}, the decoder with {ours}; "
                "their t mean different noise, train one for this decoder."
            )
    size = getattr(part.cfg, "image", part.cfg).size
    if size != model.decoder.cfg.size:
        raise BadInput(
            f"the {stage} sees {size} pixels and the decoder draws "
            f"{model.decoder.cfg.size}; noise must not be resized, train one for them."
        )
    return part


def upsampler_works(model, how):
    """The works of the upsamplers that the model holds, in order."""
    if model.upsampler is not None:
        last = model.upsampler_last
        shared = {} if last is None else {"last": last.params}
        yield upsampler_work(model.upsampler, how, "upsampler", shared)
    if model.upsampler_2 is not None:
        yield upsampler_work(model.upsampler_2, how, "upsampler_2", {}, 400)


def run_upsamplers(model, image, keys, how):
    """Pictures of the decoder through every upsampler that the model holds.

    Args:
        model: UnCLIP.
        image: float32 [b, y, x, 3] in [-1, 1], of any size.
        keys: [b].
        how: {stage: Sampling}.
    """
    for work in upsampler_works(model, how):
        image = work(image, keys)
    return image


def upsampler_work(part, how, stage, shared, fold=None):
    """The work of one upsampler."""
    static = static_of(part, how, stage)
    return Work(stage, sample_upsampler, part.params, static, shared, fold)


def static_of(part, how, stage):
    """What the program of a stage is compiled for; see `chosen_sampling`."""
    way = chosen_sampling(part, how, stage)
    return {"cfg": part.cfg, "noise": part.noise, "how": way}


def chosen_sampling(part: Any, how: dict, stage: str) -> Sampling:
    """The Sampling of a stage: the one of its name in `how`, or else its own.

    Args:
        part: the stage's component.
        how: {stage: Sampling}.
        stage: its name.

    Raises:
        BadInput: `how` names a stage that there is not, or holds something else.
    """
    if not isinstance(how, dict):
        raise BadInput(f"the samplings are {{stage: Sampling}}, not {how!r}.")
    for name, way in how.items():
        if name not in SAMPLED:
            raise BadInput(
                f"the samplings name {name!r}, which is no stage that is sampled; "
                f"these are {', '.join(SAMPLED)}."
            )
        if not isinstance(way, Sampling):
            raise BadInput(f"the sampling of {name} must be a Sampling, not {way!r}.")
    return how.get(stage) or sampling_of(part)


def costs(model, how, route="prior"):
    """{stage: share of the operations of a picture} of the stages that draw.

    Counted from networks of the configured sizes and the rows of their tables.
    """
    stages = [prior_of(model)] if route == "prior" else []
    stages += ["decoder", "upsampler", "upsampler_2"]
    held = [s for s in stages if getattr(model, s) is not None]
    found = {s: cost(s, getattr(model, s), how.get(s)) for s in held}
    return {stage: flops / sum(found.values()) for stage, flops in found.items()}


def cost(stage, part, how=None):
    """Operations of one sample of a stage, its guidance and candidates included."""
    way = how or sampling_of(part)
    _, network, example = STAGES[stage]
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), part.params)
    apply = network(part.cfg).apply
    flops = flops_of(apply, {"params": shapes}, *example(part.cfg))
    if part.noise is None:
        return flops
    table = rows(part.noise.schedule, part.noise.steps, way.steps)
    draws = way.candidates if stage in PRIORS else 1
    return flops * len(table.t) * draws * (1 if way.guidance == 1 else 2)


def sampling_of(component):
    """The way of sampling that a component was configured with."""
    return build(Sampling, component.config.get("sampling", {}), "sampling")


def run_stage(function, component, given, keys, how=None):
    """A stage's sampler on a loaded component.

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


def prior_of(model):
    """The stage that z_i comes from: the first of PRIORS that the model holds."""
    held = (stage for stage in PRIORS if getattr(model, stage) is not None)
    return next(held, next(iter(PRIORS)))


def need(model, *stages):
    """Raises BadInput naming the first of the stages that the model does not hold."""
    for stage in stages:
        if getattr(model, stage) is None:
            raise BadInput(f"the model holds no {stage}; train or import one first.")
