"""Samplers: steps of one signature, walked over a table by one scan.

step(denoise, x, row, noise) -> x, where denoise(x, row) -> Prediction. Guidance wraps
the network, fewer steps are another table, inversion is the same step over the table
turned round: a step knows none of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.diffusion.objective import split_variance
from dalle2_jax.diffusion.process import (
    eps_of,
    posterior_mean,
    q_sample,
    range_log_variance,
    to_x_0,
)
from dalle2_jax.errors import BadInput

START = 2**31 - 1  # folded into a sample's key for x_T; no step has this number


class Prediction(NamedTuple):
    """What a denoiser knows about x: float32 arrays of its shape."""

    x_0: jax.Array
    variance: jax.Array | None  # IDDPM's v in [-1, 1]; None if not learned


def denoiser(model, noise, clip, threshold=0.0):
    """denoise(x, row) -> Prediction from model(x, t) -> output, with t int32 [b].

    noise: the `Noise` that the model was trained with. clip: x_0 is kept within
    -clip and clip; None leaves it. threshold: see `bounded`.
    """

    def denoise(x, row):
        t = jnp.broadcast_to(jnp.ravel(row.t), x.shape[:1])
        output = model(x, t)
        output = output.astype(jnp.promote_types(output.dtype, jnp.float32))
        output, variance = split_variance(output, x, noise.learned_variance)
        x_0 = to_x_0(output, x, row.now, noise.predicts)
        return Prediction(bounded(x_0, clip, threshold), variance)

    return denoise


def bounded(x_0, clip, threshold=0.0):
    """x_0 [b, ...] within -clip and clip; None leaves it.

    threshold: 0 cuts what is outside. Else Imagen §2.3: where that quantile s of |x_0|
    of a sample is beyond clip, it is cut at s and scaled down to clip.
    """
    if clip is None:
        return x_0
    if not threshold:
        return jnp.clip(x_0, -clip, clip)
    size = jnp.abs(x_0.reshape(len(x_0), -1))
    s = jnp.maximum(jnp.quantile(size, threshold, axis=1), clip)
    s = s.reshape(-1, *[1] * (x_0.ndim - 1))
    return jnp.clip(x_0, -s, s) * (clip / s)


def ddpm(denoise, x, row, noise):
    """DDPM algorithm 2; the variance is the learned one or the posterior's."""
    mean, log_variance = reverse(denoise(x, row), x, row)
    return draw(mean, log_variance, row, noise)


def ddpm_beta(denoise, x, row, noise):
    """DDPM algorithm 2 with the larger of its two fixed variances, beta."""
    mean, _ = reverse(denoise(x, row), x, row)
    return draw(mean, row.log_beta, row, noise)


def reverse(prediction, x, row):
    """Mean and log variance of p(x_next | x_t): DDPM eq. 7, IDDPM eq. 15."""
    mean = posterior_mean(prediction.x_0, x, row)
    if prediction.variance is None:
        return mean, row.log_variance
    return mean, range_log_variance(prediction.variance, row)


def draw(mean, log_variance, row, noise):
    """A normal draw; the last row, after which nothing is left, gives the mean."""
    return mean + (row.rest_next > 0) * jnp.exp(0.5 * log_variance) * noise


def ddim(eta=0.0):
    """A step of DDIM eq. 12: find x_0, then noise it to the next level.

    eta: the share of that noise that is new, from 0 (deterministic) to 1 (as random as
    DDPM); a number or an array that broadcasts against x.
    """
    if isinstance(eta, int | float) and not 0 <= eta <= 1:
        raise BadInput(f"eta must lie between 0 and 1, not {eta}.")

    def step(denoise, x, row, noise):
        x_0 = denoise(x, row).x_0
        eps = eps_of(x, x_0, row.now)
        if isinstance(eta, int | float) and eta == 0:
            return q_sample(x_0, eps, row.next)
        new = eta**2 * row.variance  # DDIM eq. 16, squared
        old = jnp.sqrt(jnp.maximum(row.rest_next - new, 0))
        return jnp.sqrt(row.ab_next) * x_0 + old * eps + jnp.sqrt(new) * noise

    return step


def ddim_inverse(denoise, x, row, noise):
    """From x_0 towards x_T (ADM appendix F): walk it over `schedule.inverse_rows`."""
    return ddim(0.0)(denoise, x, row, noise)


def inpainting(step, image, known):
    """RePaint, Lugmayr et al. (2022): a step that leaves known pixels known.

    They are the picture's own, noised to the level the step arrives at. For tables of
    `schedule.resampled_rows`: rows that lead up add noise and call no network.

    Args:
        step: the step of the other pixels.
        image: x_0 [b, y, x, c]; known: [b, y, x, 1], 1 where it is to stay.
    """

    def down(denoise, x, row, noise):
        there = q_sample(image, noise, row.next)
        return jnp.where(known > 0, there, step(denoise, x, row, noise))

    def up(x, row, noise):
        share = row.ab_next / row.ab
        return jnp.sqrt(share) * x + jnp.sqrt(1 - share) * noise

    def both(denoise, x, row, noise):
        return jax.lax.cond(
            row.rest_next > row.rest,
            lambda: up(x, row, noise),
            lambda: down(denoise, x, row, noise),
        )

    return both


def sample(step, denoise, x_T, rows, keys):
    """Walks a table: x_T [b, ...], rows of arrays [n], keys a typed key array [b].

    The noise of step i for sample b is normal(fold_in(keys[b], i)): a sample depends on
    its own key, never on the batch around it. Returns float32 [b, ...].
    """
    dtype = jnp.promote_types(x_T.dtype, jnp.float32)
    table = jax.tree.map(lambda a: jnp.asarray(a, _kind(a, dtype)), rows)

    def body(x, scanned):
        i, row = scanned
        noise = _normal(keys, i, x.shape[1:], dtype)
        return step(denoise, x, row, noise).astype(dtype), None

    numbers = jnp.arange(len(table.t), dtype=jnp.int32)
    return jax.lax.scan(body, x_T.astype(dtype), (numbers, table))[0]


def dpm_solver(denoise, x_T, rows):
    """DPM-Solver++ (2M), Lu et al. (2022b), algorithm 2, on x_0; it draws no noise.

    x_T [b, ...]; rows of NumPy arrays, best spaced as "logsnr20". The first step and
    the last are of first order, and so are those more than twice as long as the one
    before, in log SNR: there the second order would magnify what differs between them.
    """
    with np.errstate(divide="ignore"):
        before, after = (
            np.log(rows.ab / rows.rest),
            np.log(rows.ab_next / rows.rest_next),
        )
    h = (after - before) / 2  # of lambda, half the log of signal over noise
    old = np.zeros_like(h)  # weight of the step before in the difference of x_0
    old[1:-1] = h[1:-1] / (2 * h[:-2])
    old[old > 1] = 0
    keep = np.sqrt(rows.rest_next / rows.rest)
    new = np.sqrt(rows.ab_next) * -np.expm1(-h)
    weights = [jnp.asarray(w, jnp.float32) for w in (keep, new, old)]
    table = jax.tree.map(lambda a: jnp.asarray(a, _kind(a, jnp.float32)), rows)

    def body(carry, scanned):
        x, x_0_before = carry
        row, (keep, new, old) = scanned
        x_0 = denoise(x, row).x_0
        steady = (1 + old) * x_0 - old * x_0_before
        return (keep * x + new * steady, x_0), None

    start = x_T.astype(jnp.float32)
    return jax.lax.scan(body, (start, jnp.zeros_like(start)), (table, weights))[0][0]


def initial_noise(keys, shape):
    """x_T of each sample from its own key: keys [b] -> float32 [b, *shape]."""
    return _normal(keys, START, tuple(shape), jnp.float32)


def _normal(keys, i, shape, dtype):
    """Standard normal [b, *shape] of the i-th descendant of each key."""

    def one(key):
        return jax.random.normal(jax.random.fold_in(key, i), shape, dtype)

    return jax.vmap(one)(keys)


def _kind(a, dtype):
    return dtype if jnp.issubdtype(a.dtype, jnp.floating) else a.dtype
