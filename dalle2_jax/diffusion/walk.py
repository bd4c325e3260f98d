"""A stage's whole walk from x_T to x_0, how it is made, and the keys of its samples."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.diffusion.guidance import classifier_ddpm, classifier_guided
from dalle2_jax.diffusion.samplers import (
    bounded,
    ddim,
    ddpm,
    denoiser,
    dpm_solver,
    sample,
)
from dalle2_jax.diffusion.schedule import analytic_rows, rows
from dalle2_jax.errors import BadInput

SEEDS = 2**64  # how many there are
BY_EPS = ("ddim", "dpm")
SAMPLERS = ("ancestral", "ddim", "dpm", "analytic")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How one stage is sampled (unCLIP Table 3).

    sampler: "ancestral" (DDPM, the variance learned or the posterior's), "ddim", "dpm"
    (DPM-Solver++ 2M), "analytic" (DDPM with the variances of Analytic-DPM).
    """

    steps: str = "250"  # respacing: "250", "ddim25", "10,10,3,2,2", "fast27"
    guidance: float = 1.0  # 1: none, one network call per step
    eta: float = 1.0  # DDIM's eta; the other samplers ignore it
    sampler: str = "ancestral"
    clip: float = 0.0  # bound on predicted x_0; 0: none
    threshold: float = 0.0  # quantile of dynamic thresholding (Imagen); 0: static
    interval: tuple[float, float] = (0.0, 1.0)  # of t / steps, where guidance acts
    rescale: float = 0.0  # how far a guided output gets its spread back; 0: not
    empty: bool = False  # guidance away from the empty caption, not from a dropped one
    candidates: int = 2  # diffusion prior: draws per z_i; the closest to z_t is kept
    temperature: float = 1.0  # autoregressive prior; 0: the likeliest codes
    percentile: float = 50.0  # autoregressive prior: z_i . z_t is drawn from above it
    clip_guidance: float = 0.0  # decoder: strength of a noise-aware CLIP's gradient
    classifier_guidance: float = 0.0  # decoder: strength of a classifier's gradient

    def __post_init__(self):
        known = self.sampler in SAMPLERS
        assert known, f"sampler must be one of {', '.join(SAMPLERS)}"
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise BadInput(f"{name} is {value}; take a finite number.")
        assert 0 <= self.threshold <= 1, "threshold must lie in 0 to 1"
        assert self.clip or not self.threshold, "threshold needs clip, its least bound"
        low, high = self.interval
        assert 0 <= low < high <= 1, "interval must lie in 0 to 1, its ends in order"
        assert 0 <= self.rescale <= 1, "rescale must lie in 0 to 1"
        assert self.candidates >= 1, "candidates must be at least 1"
        assert self.temperature >= 0, "temperature must not be negative"
        assert 0 <= self.percentile < 100, "percentile must lie in 0 to below 100"


def walk(model, noise, how, x, keys, last=None, gradient=None):
    """x_T to x_0 along the table of rows that `how` asks for.

    Args:
        model: model(x, t) -> output, guided where it should be.
        noise: the `Noise` that it was trained with.
        how: Sampling.
        x: x_T float32 [b, ...].
        keys: [b], one per sample.
        last: another model, which takes the last row alone, or None.
        gradient: gradient(x, t), scaled, that pushes every step: of ddim and dpm by
            eps, x_0 being bounded again, of the others by the mean (ADM algorithms 2
            and 1); None = nothing.

    Raises:
        BadInput: the steps do not fit the schedule, or the sampler is "analytic" and
            the mean squares that it needs were not measured.
    """
    table = rows(noise.schedule, noise.steps, how.steps)
    if how.sampler == "analytic":
        table = analytic_rows(table, noise.eps_square, noise.steps)

    def bound(x_0):
        return bounded(x_0, how.clip or None, how.threshold)

    parts = [(model, slice(None))]
    if last is not None:
        parts = [(model, slice(-1)), (last, slice(-1, None))]
    for network, part in parts:
        denoise = denoiser(network, noise, how.clip or None, how.threshold)
        if gradient is not None and how.sampler in BY_EPS:
            denoise = classifier_guided(denoise, gradient, bound)
        some = jax.tree.map(lambda column, part=part: column[part], table)
        if how.sampler == "dpm":
            x = dpm_solver(denoise, x, some)
        else:
            x = sample(step_of(how, gradient), denoise, x, some, keys)
    return x


def step_of(how, gradient=None):
    """The step that `how` names, of those that look at one level alone."""
    named = {"ddim": ddim(how.eta), "dpm": ddim(0.0)}  # dpm alone in one step is ddim
    by_mean = ddpm if gradient is None else classifier_ddpm(gradient)
    return named.get(how.sampler, by_mean)


def interval_of(how, noise):
    """The first and last t at which guidance acts; None where it always does."""
    if how.interval == (0.0, 1.0):
        return None
    return tuple(round(share * (noise.steps - 1)) for share in how.interval)


def seed_key(seed: int) -> jax.Array:
    """The key of a 64-bit seed.

    Without x64, jax keeps the lower 32 bits of a seed alone; the upper word is folded
    in where it is not 0, so that seeds below 2^32 give what they always gave.

    Raises:
        BadInput: the seed is no whole number from 0 to 2^64 - 1.
    """
    whole = isinstance(seed, (int, np.integer)) and not isinstance(seed, bool)
    if not whole or not 0 <= seed < SEEDS:
        raise BadInput(f"the seed is {seed!r}; take a whole number, 0 to 2^64 - 1.")
    high, low = divmod(int(seed), 2**32)
    key = jax.random.key(np.uint32(low))
    return jax.random.fold_in(key, np.uint32(high)) if high else key


def sample_keys(seed: int, first: int, count: int) -> jax.Array:
    """One key per sample, [count]: a function of (seed, sample index) alone.

    Raises:
        BadInput: as `seed_key`.
    """
    root = seed_key(seed)
    index = jnp.arange(first, first + count)
    return jax.vmap(lambda i: jax.random.fold_in(root, i))(index)


def stage_keys(keys, number):
    """The keys [b] that the samples use in the stage of that number."""
    return jax.vmap(lambda k: jax.random.fold_in(k, number))(keys)
