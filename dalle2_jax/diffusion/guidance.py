"""Guidance: wrappers around what a sampler calls. Models and samplers know none of it.

Classifier-free: Ho and Salimans (2022). With a classifier: ADM, Dhariwal and Nichol
(2021), algorithms 1 and 2; gradients come scaled, s * grad log p(y | x_t).
"""

import jax
import jax.numpy as jnp

from dalle2_jax.diffusion.process import eps_of, x_0_of
from dalle2_jax.diffusion.samplers import Prediction, draw, reverse
from dalle2_jax.errors import BadInput


def guided(
    model, cond, null, scale, learned_variance=False, interval=None, rescale=0.0
):
    """Classifier-free guidance: model2(x, t) = null + scale * (cond - null).

    model(x, t, cond) is called once per step, on a batch of twice the size. cond, null:
    trees of arrays [b, ...]; null is the condition that says nothing. scale: a number,
    or an array [b]. The number 1 means no guidance: one call of the plain size, and
    null may be None. With learned_variance the second half of the last axis is not
    guided: it is that of the condition. interval: (first, last) t that are guided,
    both included (Kynkaanniemi et al. 2024), None = all; the others have scale 1.
    rescale: the share to which the guided output is given the standard deviation of
    that of the condition (Lin et al. 2024, section 3.4).

    Raises:
        BadInput: there is no null, or it has not the parts that cond has.
    """
    if isinstance(scale, int | float) and scale == 1:
        return lambda x, t: model(x, t, cond)
    if jax.tree.structure(cond) != jax.tree.structure(null):
        raise BadInput(
            f"guidance by {scale} needs a null condition with the parts of the "
            "condition; build it from the condition, or set scale to 1."
        )
    both = jax.tree.map(_join, cond, null)
    scale = jnp.asarray(scale, jnp.float32)

    def model2(x, t):
        output = model(_join(x, x), _join(t, t), both)
        with_cond, without = jnp.split(output, 2)
        s = scale
        if interval is not None:
            s = jnp.where((t >= interval[0]) & (t <= interval[1]), scale, 1.0)
        s = s.reshape(-1, *[1] * (x.ndim - 1))
        half = output.shape[-1] // (2 if learned_variance else 1)
        plain, without = with_cond[..., :half], without[..., :half]
        mixed = without + s * (plain - without)  # float32, as the scale is
        mixed = _rescaled(mixed, plain, rescale) if rescale else mixed
        return jnp.concatenate([mixed, with_cond[..., half:]], axis=-1)

    return model2


def classifier_guided(denoise, gradient, bound=lambda x_0: x_0):
    """ADM algorithm 2, for `ddim`: eps less sqrt(1 - ab) * gradient(x, t).

    bound: what x_0 is then put through. ADM has none; but at the first steps of the
    cosine schedule, where sqrt(ab) is 5e-5, the least push throws x_0 out of all range.
    """

    def guided_denoise(x, row):
        x_0, variance = denoise(x, row)
        push = jnp.sqrt(row.rest) * gradient(x, _times(row, x))
        eps = eps_of(x, x_0, row.now) - push
        return Prediction(bound(x_0_of(x, eps, row.now)), variance)

    return guided_denoise


def classifier_ddpm(gradient):
    """ADM algorithm 1: `ddpm` whose mean moves by variance * gradient(x, t)."""

    def step(denoise, x, row, noise):
        mean, log_variance = reverse(denoise(x, row), x, row)
        pushed = mean + jnp.exp(log_variance) * gradient(x, _times(row, x))
        return draw(pushed, log_variance, row, noise)

    return step


def _rescaled(mixed, plain, share):
    """`mixed` with `share` of the way to the spread that `plain` has, per sample."""
    axes = tuple(range(1, mixed.ndim))
    wanted, there = (x.std(axes, keepdims=True) for x in (plain, mixed))
    return mixed * (1 + share * (wanted / jnp.maximum(there, 1e-8) - 1))


def _join(a, b):
    return jnp.concatenate([a, b])


def _times(row, x):
    """The step that a network is told, for each sample; [b]."""
    return jnp.broadcast_to(jnp.ravel(row.t), x.shape[:1])
