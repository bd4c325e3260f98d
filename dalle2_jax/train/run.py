"""What a training run is: the frozen form of a configuration file.

`configs/*.py` return an `ml_collections.ConfigDict`; `run_from` turns it into a `Run`
once, strictly. The resolved run is saved in the run directory and in every checkpoint
and exported component, so loading never needs flags.
"""

import dataclasses
import functools
import operator
from typing import Any

from ml_collections import ConfigDict

from dalle2_jax.components import STAGES
from dalle2_jax.config import SEEDS, build, plain
from dalle2_jax.decoder.bsr import RECIPES
from dalle2_jax.diffusion.schedule import Noise
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.recompute import POLICIES
from dalle2_jax.shard.mesh import MeshConfig
from dalle2_jax.unclip import Sampling

HEARING = ("prior", "autoregressive", "decoder")  # stages that z_i and captions enter
CONTRASTIVE = ("clip", "noised_clip")  # stages whose loss compares examples
# What may change between a run and its resumption.
FREE = (
    "steps",  # not below the step that it has reached
    "log_every",
    "save_every",
    "sample_every",
    "evaluate",
    "keep",
    "keep_every",
    "mesh",
    "sampling",
    "accumulate",
    "remat_keeps",
    "guard",
    "data.threads",
    "data.workers",
    "data.cache",
    "data.bad",
)


@dataclasses.dataclass(frozen=True)
class Optim:
    """AdamW with decoupled decay off gains and biases (unCLIP App. C, Table 3)."""

    rate: float
    warmup: int = 0  # steps of linear rise
    final: float = 1.0  # the rate falls along a cosine to final * rate
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    decay: float = 0.0
    clip: float = 0.0  # global gradient norm; 0: no clipping
    sam_rho: float = 0.0  # length of sharpness-aware minimisation's step; 0: off
    sam_group: int = 64  # examples that share one such step
    ema: float = 0.9999  # decay of the average that becomes the component
    ema_more: tuple[float, ...] = ()  # decays of further averages, kept beside it


@dataclasses.dataclass(frozen=True)
class Data:
    """How pictures and captions become batches."""

    size: int  # pixels of the square pictures in a batch
    context: int  # tokens per caption
    group: int = 1  # neighbours in a shard that stay together in a batch
    threads: int = 8  # that decode, where no workers do
    workers: int = 0  # processes that decode; 0: threads
    cache: int = 512  # MiB of decoded pictures that are kept, where all fit in
    bad: float = 0.01  # share of broken samples at which the run stops
    caption: str = ""  # member or JSON field that is it; "": KEY.txt, "caption"
    classes: tuple[str, ...] = ()  # classifier: what the labels say; (): their numbers
    keep: tuple[str, ...] = ()  # filters on numbers in the JSON, as "width>=256"
    shuffle_shards: int = 0  # shards shuffled at a time; 0: all samples at once
    embeddings: str = ""  # member with z_i ("npy"); "": CLIP makes it of the picture
    index: str = "auto"  # of shards: "all" at first, "lazy": in turn, from 1,000 on

    def __post_init__(self):
        assert self.index in ("auto", "all", "lazy"), "index must be auto, all or lazy"
        assert self.threads > 0, "threads must be positive"
        for name in ("workers", "cache", "shuffle_shards"):
            assert getattr(self, name) >= 0, f"{name} must not be negative"


@dataclasses.dataclass(frozen=True)
class Corrupt:
    """What the network under training is denied or shown worse (unCLIP §2.1, §2.2)."""

    drop_image: float = 0.0  # share of examples without z_i
    drop_text: float = 0.0  # share of examples without the caption
    noise_image: float = 0.0  # decoder: noise on z_i, of its length; not in the paper
    empty: bool = False  # decoder: a dropped caption is the empty one, not absent
    kind: str = "blur"  # of the low-resolution picture; or "bsr", "bsr_light"
    blur: float = 0.0  # "blur": probability of blurring the low-resolution picture
    noise: float = 0.0  # "blur": largest deviation of noise added to it, of [-1, 1]
    crop: float = 1.0  # side of the training crop as a fraction of the picture

    def __post_init__(self):
        kinds = ("blur", *RECIPES)
        assert self.kind in kinds, f"kind must be one of {', '.join(kinds)}"
        assert self.kind == "blur" or not (self.blur or self.noise), (
            f"blur and noise belong to kind=blur, {self.kind} has its own"
        )


@dataclasses.dataclass(frozen=True)
class Guard:
    """Steps that are passed over: those not finite always, spikes where asked for."""

    spike: float = 0.0  # times the mean gradient norm at which a step is bad; 0: off
    horizon: int = 100  # good steps that the mean is over, and that come first
    most: int = 10  # bad steps of the last `window` at which `then` happens; 0: never
    window: int = 100
    then: str = "stop"  # with exit code 1; or "rollback" to before the first of them
    rollbacks: int = 3  # in one run directory, then stop

    def __post_init__(self):
        assert self.then in ("stop", "rollback"), "then must be stop or rollback"
        assert self.horizon > 0, "horizon must be positive"
        assert self.spike == 0 or self.spike > 1, "spike must be 0 or above 1"
        assert 0 <= self.most <= self.window, "most must be within window"


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Numbers of the running average during training, of decoders (train/judged.py)."""

    every: int = 0  # steps between two; 0: never
    n: int = 256  # pictures
    data: str = ""  # tar shards, of which the first n; "": of the run's own

    def __post_init__(self):
        assert self.every >= 0, "every must not be negative"
        assert self.n > 1, "n must be at least 2"


@dataclasses.dataclass(frozen=True)
class Run:
    """One stage, trained once."""

    stage: str
    model: Any  # the stage's own configuration, STAGES[stage]
    optim: Optim
    data: Data
    batch: int
    steps: int
    accumulate: int = 1  # microbatches that a batch is taken in, one after the other
    remat_keeps: str = "nothing"  # in blocks with remat; or "products"
    noise: Noise | None = None
    sampling: Sampling = Sampling()
    corrupt: Corrupt = Corrupt()
    mesh: MeshConfig = MeshConfig()
    guard: Guard = Guard()
    vocab: int = 0  # CLIP only: size of a vocabulary to train where none is given
    codes: str = ""  # priors: codes or whitening, a file of `dalle2 data fit-pca`
    codes_from: int = 0  # else the pictures that they are fitted to
    seed: int = 0
    log_every: int = 100
    save_every: int = 1000
    sample_every: int = 0
    evaluate: Evaluate = Evaluate()
    keep: int = 3  # newest checkpoints
    keep_every: int = 0  # and those of steps that it divides; 0: none

    def __post_init__(self):
        names = ", ".join(POLICIES)
        assert self.remat_keeps in POLICIES, f"remat_keeps must be one of {names}"


def run_from(config):
    """The `Run` of a nested mapping (a ConfigDict, or what `config.json` holds).

    Raises:
        BadInput: unknown, missing or mistyped fields; names the field.
    """
    values = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    values.pop("provenance", None)  # what a run started from is no part of it
    stage = values.get("stage")
    if stage not in STAGES:
        raise BadInput(
            f"config.stage is {stage!r}; it must be one of {', '.join(STAGES)}."
        )
    if "model" not in values:
        raise BadInput(f"config.model is missing; the {stage} stage needs it.")
    values["model"] = build(STAGES[stage][0], values["model"], "config.model")
    run = build(Run, values)
    for name in ("batch", "steps", "accumulate", "log_every", "save_every"):
        if getattr(run, name) <= 0:
            raise BadInput(f"config.{name} must be positive, not {getattr(run, name)}.")
    if not 0 <= run.seed < SEEDS:
        raise BadInput(
            f"config.seed is {run.seed}; take a whole number from 0 to {SEEDS - 1}."
        )
    if run.accumulate > 1 and (stage in CONTRASTIVE or run.optim.sam_rho):
        raise BadInput(
            f"config.accumulate is {run.accumulate}, but the {stage} stage compares "
            "all examples of a batch, which microbatches cannot: set it to 1 and take "
            "more devices, config.model's remat, or a smaller config.batch."
        )
    if stage not in ("clip", "autoregressive") and run.noise is None:
        raise BadInput(
            f"config.noise is missing; the {stage} stage sees what is noised by it."
        )
    if run.evaluate.every and (stage != "decoder" or run.data.embeddings):
        raise BadInput(
            f"config.evaluate.every is {run.evaluate.every}, but only decoders that "
            "hear CLIP's view of pictures are evaluated while they train; set it to 0."
        )
    _check_codes(run)
    _check_labels(run)
    return run


def _check_codes(run):
    """Refuses a prior without its codes or whitening, or another stage with them."""
    fitted = run.stage == "autoregressive"
    fitted = fitted or run.stage == "prior" and run.model.whiten
    if fitted and run.codes:
        return
    if run.codes or fitted != (run.codes_from > 0):
        name = "codes" if run.codes else "codes_from"
        raise BadInput(
            f"config.{name} is {getattr(run, name)!r}; it must be "
            f"{'positive' if fitted else 'left out'} for this {run.stage}: only codes "
            "and whitening are fitted to pictures."
        )
    if run.stage == "autoregressive" and run.codes_from <= run.model.codes:
        raise BadInput(
            f"config.codes_from is {run.codes_from}; the autoregressive stage fits its "
            f"{run.model.codes} components to that many pictures, take many more."
        )


def _check_labels(run):
    """Refuses a classifier without labels, and names of classes elsewhere."""
    data, named = run.data, len(run.data.classes)
    if run.stage != "classifier":
        if named:
            raise BadInput(
                f"config.data.classes is for classifiers; leave it out of {run.stage}."
            )
        return
    if not data.caption or data.context != 1:
        raise BadInput(
            "A classifier needs config.data.caption, the member or field of a sample "
            f"that is its label, and config.data.context=1, not {data.caption!r} and "
            f"{data.context}."
        )
    if named and named != run.model.unet.out_channels:
        raise BadInput(
            f"config.data.classes has {named} names and config.model.unet.out_channels "
            f"is {run.model.unet.out_channels}; make them agree."
        )


def as_dict(run):
    """The JSON-able form of a run; `run_from` reads it back."""
    return plain(run)


def difference(ours, theirs):
    """The first field, dotted, in which two runs differ and must not, or None."""
    return _differs(_fixed(ours), _fixed(theirs), "config")


def _fixed(run):
    """The JSON-able form of a run without what may change."""
    values = as_dict(run)
    for name in FREE:
        *groups, last = name.split(".")
        holder = functools.reduce(operator.getitem, groups, values)
        del holder[last]
    return values


def _differs(a, b, where):
    if not isinstance(a, dict) or not isinstance(b, dict):
        return None if a == b else where
    found = (_differs(a.get(k), b.get(k), f"{where}.{k}") for k in {**a, **b})
    return next((name for name in found if name), None)
