"""The diffusion process: every equation once.

All of them go through (x_0, eps). Symbols: x_0 clean, x_t noised, eps the noise in x_t,
ab alpha-bar: a number or an array that broadcasts against x ([b, 1, 1, 1] beside
[b, y, x, c]), or a `schedule.Level`, which is exact in float32 where ab is almost 1.
"""

import jax.numpy as jnp

from dalle2_jax.diffusion.schedule import Level
from dalle2_jax.errors import BadInput


def _roots(ab):
    """sqrt(ab) and sqrt(1 - ab)."""
    level = ab if isinstance(ab, Level) else Level(ab, 1 - ab)
    return jnp.sqrt(level.ab), jnp.sqrt(level.rest)


def q_sample(x_0, eps, ab):
    """DDPM eq. 4: x_t of the given level."""
    signal, noise = _roots(ab)
    return signal * x_0 + noise * eps


def eps_of(x_t, x_0, ab):
    """DDPM eq. 4, solved for eps."""
    signal, noise = _roots(ab)
    return (x_t - signal * x_0) / noise


def x_0_of(x_t, eps, ab):
    """DDPM eq. 4, solved for x_0."""
    signal, noise = _roots(ab)
    return (x_t - noise * eps) / signal


def v_of(x_0, eps, ab):
    """Salimans and Ho (2022), appendix D: the velocity."""
    signal, noise = _roots(ab)
    return signal * eps - noise * x_0


def x_0_of_v(x_t, v, ab):
    """Salimans and Ho (2022), appendix D, solved for x_0 at a known x_t."""
    signal, noise = _roots(ab)
    return signal * x_t - noise * v


def posterior_mean(x_0, x_t, row):
    """DDPM eq. 7: the mean of q(x_next | x_t, x_0) for one row of a table."""
    of_x_0 = row.beta * jnp.sqrt(row.ab_next) / row.rest
    of_x_t = jnp.sqrt(row.ab / row.ab_next) * row.rest_next / row.rest
    return of_x_0 * x_0 + of_x_t * x_t


def range_log_variance(v, row):
    """IDDPM eq. 15: v in [-1, 1] goes from log posterior variance to log beta."""
    share = (v + 1) / 2
    return share * row.log_beta + (1 - share) * row.log_variance


def to_x_0(output, x_t, ab, predicts):
    """The x_0 that a network's output stands for. predicts: "eps", "x0" or "v"."""
    if predicts == "x0":
        return output
    solve = {"eps": x_0_of, "v": x_0_of_v}.get(predicts)
    if solve is None:
        raise BadInput(f"predicts must be eps, x0 or v, not {predicts!r}.")
    return solve(x_t, output, ab)


def target(x_0, eps, ab, predicts):
    """What a network should put out. predicts: "eps", "x0" or "v"."""
    if predicts == "v":
        return v_of(x_0, eps, ab)
    targets = {"x0": x_0, "eps": eps}
    if predicts not in targets:
        raise BadInput(f"predicts must be eps, x0 or v, not {predicts!r}.")
    return targets[predicts]
