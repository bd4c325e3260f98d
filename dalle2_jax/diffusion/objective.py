"""What a diffusion model is trained on: the simple loss and the learned-range bound.

DDPM eq. 14 and IDDPM eq. 16. The bound is in bits per dimension; it trains the variance
alone, so no gradient goes through its mean.
"""

import jax
import jax.numpy as jnp

from dalle2_jax.diffusion.process import (
    posterior_mean,
    q_sample,
    range_log_variance,
    target,
    to_x_0,
)
from dalle2_jax.diffusion.schedule import Rows, full_table
from dalle2_jax.errors import BadInput

LOG_2 = 0.6931471805599453


def draw_times(key, batch, noise):
    """t = floor(steps * u ** time_power), u uniform in [0, 1); int32 [batch]."""
    u = jax.random.uniform(key, (batch,))
    t = jnp.floor(noise.steps * u**noise.time_power).astype(jnp.int32)
    return jnp.minimum(t, noise.steps - 1)  # u ** power may round to 1


def row_at(t, noise, ndim):
    """The full chain's row of each step t [b]; leaves [b, 1, ...] of ndim axes."""
    table = full_table(noise.schedule, noise.steps)
    shape = (-1, *[1] * (ndim - 1))
    return Rows(*(jnp.asarray(column)[t].reshape(shape) for column in table))


def noised(x_0, eps, t, noise):
    """x_t of each sample's step: x_0 and eps [b, ...], t int32 [b] -> [b, ...]."""
    return q_sample(x_0, eps, row_at(t, noise, x_0.ndim).now)


def diffusion_loss(model_output, x_0, x_t, eps, t, noise):
    """The loss of each sample, float32 [b], and its parts, a dict of float32 [b].

    model_output [b, ..., c], or [b, ..., 2c] with learned_variance; x_0, x_t, eps
    [b, ..., c]; t int32 [b], steps of the full chain. The loss is the squared error of
    what noise.predicts names and, with learned_variance, IDDPM's 0.001 L_vlb.
    """
    row = row_at(t, noise, x_0.ndim)
    return loss_at(model_output, x_0, x_t, eps, row, noise)


def loss_at(model_output, x_0, x_t, eps, row, noise):
    """`diffusion_loss` for given rows [b, 1, ...] instead of steps."""
    model_output, x_0, x_t, eps = _float32(model_output, x_0, x_t, eps)
    output, v = split_variance(model_output, x_0, noise.learned_variance)
    error = output - target(x_0, eps, row.now, noise.predicts)
    mse = _mean(error**2)
    if v is None:
        return mse, {"mse": mse}
    # L_vlb is a sum over all steps; one step drawn at random stands for all of them.
    bits = output_bound(jax.lax.stop_gradient(output), v, x_0, x_t, row, noise)
    return mse + 0.001 * noise.steps * bits, {"mse": mse, "bound": bits}


def split_variance(model_output, x, learned_variance):
    """Prediction and variance channels (None without) of an output shaped like x.

    Raises:
        BadInput: the last axis has not the length that the noise config promises.
    """
    channels, have = x.shape[-1], model_output.shape[-1]
    if have != channels * (1 + learned_variance):
        raise BadInput(
            f"the network puts out {have} channels for {channels}: learned_variance "
            f"is {learned_variance}; set it, or the network's out_channels."
        )
    if not learned_variance:
        return model_output, None
    return model_output[..., :channels], model_output[..., channels:]


def output_bound(output, v, x_0, x_t, row, noise):
    """IDDPM eq. 4-6 for a network's output and its variance channels; bits, [b]."""
    x_0_hat = to_x_0(output, x_t, row.now, noise.predicts)
    mean = posterior_mean(x_0_hat, x_t, row)
    return bound(x_0, x_t, mean, range_log_variance(v, row), row)


def bound(x_0, x_t, mean, log_variance, row):
    """A step's term of the variational bound in bits per dimension, [b].

    IDDPM eq. 6, KL(q(x_next | x_t, x_0) || N(mean, exp log_variance)); at the last
    step eq. 5, -log p(x_0 | x_t) of 8-bit images in [-1, 1]. row leaves [b, 1, ...].
    """
    nll = -discretised_log_likelihood(x_0, mean, 0.5 * log_variance)
    last = jnp.ravel(row.rest_next) == 0
    kl = kl_bits(x_0, x_t, mean, log_variance, row)
    return jnp.where(last, _mean(nll) / LOG_2, kl)


def kl_bits(x_0, x_t, mean, log_variance, row):
    """IDDPM eq. 6, in bits per dimension, [b]."""
    true = posterior_mean(x_0, x_t, row)
    return _mean(gaussian_kl(true, row.log_variance, mean, log_variance)) / LOG_2


def prior_bits(x_0, ab):
    """IDDPM eq. 7: KL(q(x_T | x_0) || N(0, 1)) in bits per dimension, [b]."""
    mean, rest = q_sample(x_0, 0.0, ab), q_sample(0.0, 1.0, ab) ** 2
    return _mean(gaussian_kl(mean, jnp.log(rest), 0.0, 0.0)) / LOG_2


def gaussian_kl(mean_1, log_variance_1, mean_2, log_variance_2):
    """KL divergence of two normal distributions, elementwise, in nats."""
    log_ratio = log_variance_2 - log_variance_1
    squares = (mean_1 - mean_2) ** 2 * jnp.exp(-log_variance_2)
    return 0.5 * (log_ratio + jnp.expm1(-log_ratio) + squares)


def discretised_log_likelihood(x, mean, log_scale):
    """DDPM eq. 13: log probability of 8-bit values x in [-1, 1], elementwise, nats.

    A value owns 1/255 to either side of it, the two at the ends all that lies beyond.
    """
    scale = jnp.exp(-log_scale)
    above = _normal_cdf((x - mean + 1 / 255) * scale)
    below = _normal_cdf((x - mean - 1 / 255) * scale)
    first, last = x < -0.999, x > 0.999
    mass = jnp.where(last, 1.0, above) - jnp.where(first, 0.0, below)
    return jnp.log(jnp.maximum(mass, 1e-12))


def _normal_cdf(x):
    """The tanh fit of the normal distribution that published models were trained on."""
    return 0.5 * (1 + jnp.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))


def _mean(x):
    """The mean over all axes but the first."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))


def _float32(*arrays):
    return [a.astype(jnp.promote_types(a.dtype, jnp.float32)) for a in arrays]
