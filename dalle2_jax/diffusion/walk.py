"""A stage's whole walk from x_T to x_0, and the keys of its samples."""

import jax
import jax.numpy as jnp

from dalle2_jax.diffusion.samplers import ddim, ddpm, denoiser, sample
from dalle2_jax.diffusion.schedule import rows


def walk(model, noise, how, x, keys, last=None):
    """x_T to x_0 along the table of rows that `how` asks for.

    Args:
        model: model(x, t) -> output, guided where it should be.
        noise: the `Noise` that it was trained with.
        how: has steps, sampler ("ancestral" or "ddim"), eta, clip (0: none).
        x: x_T float32 [b, ...].
        keys: [b], one per sample.
        last: another model, which takes the last row alone, or None.
    """
    step = step_of(how)
    table = rows(noise.schedule, noise.steps, how.steps)
    parts = [(model, slice(None))]
    if last is not None:
        parts = [(model, slice(-1)), (last, slice(-1, None))]
    for network, part in parts:
        denoise = denoiser(network, noise, how.clip or None)
        some = jax.tree.map(lambda column, part=part: column[part], table)
        x = sample(step, denoise, x, some, keys)
    return x


def step_of(how):
    """The step that `how` names: its fields sampler and eta."""
    return ddpm if how.sampler == "ancestral" else ddim(how.eta)


def sample_keys(seed, first, count):
    """One key per sample: a function of (seed, sample index) alone."""
    root = jax.random.key(seed)
    index = jnp.arange(first, first + count)
    return jax.vmap(lambda i: jax.random.fold_in(root, i))(index)


def stage_keys(keys, number):
    """The keys [b] that the samples use in the stage of that number."""
    return jax.vmap(lambda k: jax.random.fold_in(k, number))(keys)
