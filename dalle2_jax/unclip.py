"""unCLIP §2: P(x|y) = P(x|z_i, y) P(z_i|y). Captions to pictures, stage after stage.

The public face of a model: its directory, its samples. The stages are in stages.py,
what follows what in cascade.py, how many at a time in batching.py.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from dalle2_jax.batching import GROUP, Fit, Runner
from dalle2_jax.cascade import (
    Asked,
    captions_read,
    cascade,
    need,
    prior_of,
    prior_work,
    run_stage,
    run_upsamplers,
    sampling_of,
)
from dalle2_jax.components import components_of, load_component
from dalle2_jax.data.picture_arrays import as_floats
from dalle2_jax.data.tokens import Tokenizer, as_captions
from dalle2_jax.diffusion.walk import Sampling, sample_keys, seed_key, stage_keys
from dalle2_jax.errors import BadInput
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
    "Fit",
    "Request",
    "Sampling",
    "UnCLIP",
    "check_count",
    "decoder_condition",
    "draw",
    "draw_z_image",
    "encode_captions",
    "encode_images",
    "from_uint8",
    "generate",
    "imagined",
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


class Request(NamedTuple):
    """What is wanted of n samples.

    captions: n strings or one, which a noise-aware CLIP guides to as well.
    decoder_captions: n others that the decoder is told; None = the same.
    labels: n whole numbers, for guidance by a classifier. first: number of the first
    sample, from which on they are keyed.
    """

    captions: list | str
    decoder_captions: list | None = None
    labels: list | None = None
    first: int = 0


class UnCLIP(NamedTuple):
    """A loaded model directory; a stage that it does not hold is None.

    Where there are several priors, z_i comes from the first of cascade.PRIORS. The
    weights are arrays of the host; a stage's are on the devices while it runs.
    """

    clip: Any = None
    prior: Any = None
    prior_dalle2_pytorch: Any = None
    autoregressive: Any = None
    decoder: Any = None
    upsampler: Any = None
    upsampler_last: Any = None
    upsampler_2: Any = None
    noised_clip: Any = None
    classifier: Any = None
    tokenizer: Any = None

    @classmethod
    def load(cls, folder, dtype=None):
        """The model of a directory; arguments as of the function `load`."""
        return load(folder, dtype)

    def generate(
        self,
        captions: Any,
        seed: int = 0,
        how: dict | None = None,
        batch: int | Fit = 64,
    ) -> np.ndarray:
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


def draw(model, tokens, keys, how, z_image=None, route="prior"):
    """One batch through the whole stack, on the devices that its keys are on.

    Args:
        model: UnCLIP.
        tokens: int32 [b, n].
        keys: [b].
        how, route: as in `cascade.cascade`.
        z_image: unit [b, clip], used when route is "image".

    Returns:
        Pictures float32 [b, y, x, 3] in [-1, 1], of the last stage present.
    """
    blank = model.tokenizer.encode([""], tokens.shape[1])
    asked = Asked(tokens, blank, z_image=z_image)
    work, given = cascade(model, asked, lambda w, given: w(given, keys), how, route)
    return work(given, keys)


def draw_z_image(model, caption, keys, how, empty=None):
    """z_i [b, clip] of Captions from the prior that the model holds.

    Args: as in `draw`; caption and empty as in `sample_prior`.
    """
    return prior_work(model, how, empty)(caption, keys)


def upsample(model: UnCLIP, image: Any, keys: jax.Array, how: dict) -> jax.Array:
    """Pictures of any size through every upsampler that the model holds.

    Args: as in `draw`; image: b pictures (`picture_arrays`).

    Returns:
        float32 [b, factor y, factor x, 3] in [-1, 1].

    Raises:
        BadInput: no pictures, or the model holds no upsampler.
    """
    need(model, "upsampler")
    return run_upsamplers(model, as_floats(image, len(keys)), keys, how)


def check_count(value: Any, name: str = "count", least: int = 1) -> int:
    """A whole number that is at least `least`.

    Raises:
        BadInput: it is another; names it.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise BadInput(
            f"{name} is {value!r}; take a whole number that is at least {least}."
        )
    return int(value)


def generate(
    model: UnCLIP,
    captions: Any,
    seed: int = 0,
    batch: int | Fit = 64,
    how: dict | None = None,
    route: str = "prior",
    z_image: Any = None,
    tell: Callable | None = None,
) -> Iterator[np.ndarray]:
    """Pictures for captions; sample i depends on (model, caption, seed, i) alone.

    Stage after stage over about a thousand samples at a time, the weights of one stage
    on the devices.

    Args:
        model: UnCLIP with at least clip, decoder, and a prior when route is "prior".
        captions: n strings, one string for one picture, or Request.
        seed: of the run, of 64 bits.
        batch: most samples per program, spread over the devices of this process; the
            parts are made equally large, the last one is padded. `batching.Fit`: as
            many as memory allows, for each stage.
        how, route, z_image: as in `draw`; z_image [n, clip].
        tell: called as tell(stage, samples) when a stage has made some.

    Yields:
        uint8 [up to batch, y, x, 3], in the order of the captions.

    Raises:
        BadInput: no caption, or an argument of another type, range or number; a stage
            that the model lacks.
    """
    need(model, "clip", "decoder", *([prior_of(model)] if route == "prior" else []))
    wish = captions if isinstance(captions, Request) else Request(captions)
    asked, how = read(model, wish, z_image), {} if how is None else how
    runner = runner_of(seed, batch, tell)
    return _drawn_in_groups(model, asked, wish.first, runner, how, route)


def runner_of(seed: int, batch: int | Fit = 64, tell: Callable | None = None) -> Runner:
    """A Runner on the devices of this process; arguments as of `generate`.

    Raises:
        BadInput: the seed or the batch cannot be.
    """
    seed_key(seed)
    if not isinstance(batch, Fit):
        batch = check_count(batch, "batch")
    return Runner(jax.local_devices(), seed, batch, tell or (lambda *made: None))


def _drawn_in_groups(model, asked, first_number, runner, how, route):
    """What `generate` yields, of Asked."""
    count = len(asked.tokens)
    size = runner.size(count)
    group = max(GROUP // size, 1) * size
    for start in range(0, count, group):
        part = some(asked, slice(start, start + group))
        first = first_number + start

        def run(work, given, first=first):
            return runner.whole(work, given, first, size)

        last = cascade(model, part, run, how, route)
        yield from map(to_uint8, runner.stream(*last, first, size))


def imagined(
    model: UnCLIP,
    captions: Any,
    seed: int = 0,
    batch: int | Fit = 64,
    how: dict | None = None,
    first: int = 0,
) -> np.ndarray:
    """What the prior makes of captions: z_i float32 [n, clip], as in `generate`.

    first: number of the first of them.
    """
    need(model, "clip", prior_of(model))
    asked = read(model, Request(captions))
    runner = runner_of(seed, batch)
    size = runner.size(len(asked.tokens))

    def run(work, given):
        return runner.whole(work, given, first, size)

    caption, _, empty = captions_read(model, asked, run)
    return run(prior_work(model, how or {}, empty), caption)


def read(model, wish, z_image=None):
    """A Request as Asked.

    Raises:
        BadInput: there is no caption, or there are not as many of one thing as of
            captions.
    """
    captions = as_captions(wish.captions)
    count, told = len(captions), wish.decoder_captions
    if not count:
        raise BadInput("there is no caption; give a string, or a list of them.")
    told = as_captions(told, count) if told is not None else None
    check_count(wish.first, "first", least=0)
    if wish.labels is not None and len(wish.labels) != count:
        raise BadInput(f"{count} captions need as many labels, not {len(wish.labels)}.")
    wanted, have = (count, model.clip.cfg.clip), np.shape(z_image)
    if z_image is not None and have != wanted:
        raise BadInput(f"z_image is {have}; {count} captions need {wanted}.")
    encode, context = model.tokenizer.encode, model.clip.cfg.text.context
    guide = None
    if model.noised_clip is not None:
        guide = encode(captions, model.noised_clip.cfg.text.context)
    return Asked(
        tokens=encode(captions, context),
        blank=encode([""], context),
        told=encode(told, context) if told else None,
        z_image=None if z_image is None else np.asarray(z_image),
        guide=guide,
        label=None if wish.labels is None else np.asarray(wish.labels, np.int32),
    )


def some(asked, part):
    """Asked of some of its samples."""
    cut = jax.tree.map(lambda x: x[part], asked._replace(blank=None))
    return cut._replace(blank=asked.blank)
