"""The losses: where they are zero, what they teach, and what they leave alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.diffusion import objective
from dalle2_jax.diffusion.process import target
from dalle2_jax.diffusion.schedule import Noise, rows
from dalle2_jax.errors import BadInput

SHAPE = (6, 4, 4, 3)
X_0 = jnp.clip(jax.random.normal(jax.random.key(0), SHAPE), -1, 1)
EPS = jax.random.normal(jax.random.key(1), SHAPE)
T = jnp.array([0, 1, 10, 300, 700, 999])
LEARNED = Noise(learned_variance=True)
X_T = objective.noised(X_0, EPS, T, LEARNED)


def perfect(noise):
    row = objective.row_at(T, noise, X_0.ndim)
    return target(X_0, EPS, row.now, noise.predicts)


def loss_of(output, noise):
    return objective.diffusion_loss(output, X_0, X_T, EPS, T, noise)


def with_v(output, v):
    return jnp.concatenate([output, jnp.full_like(output, v)], axis=-1)


@pytest.mark.parametrize("predicts", ["eps", "x0", "v"])
def test_the_loss_of_a_perfect_network_is_zero(predicts):
    noise = Noise(predicts=predicts)
    loss, metrics = loss_of(perfect(noise), noise)
    np.testing.assert_array_equal(loss, 0)
    assert set(metrics) == {"mse"} and loss.shape == (6,)


def test_the_loss_is_one_number_per_sample():
    noise = Noise()
    output = perfect(noise).at[2].add(0.5)
    loss, _ = loss_of(output, noise)
    np.testing.assert_allclose(loss, [0, 0, 0.25, 0, 0, 0], atol=1e-6)


def test_the_bound_of_the_true_posterior_is_zero_bits():
    _, metrics = loss_of(with_v(perfect(LEARNED), -1.0), LEARNED)
    np.testing.assert_allclose(metrics["bound"][1:], 0, atol=1e-6)
    assert metrics["bound"][0] > 0.1  # 8-bit values cost bits however good x_0 is


def test_a_variance_too_large_costs_bits():
    bits = [
        loss_of(with_v(perfect(LEARNED), v), LEARNED)[1]["bound"][1:4]
        for v in (-1.0, 0.0, 1.0)
    ]
    assert np.all(bits[0] < bits[1]) and np.all(bits[1] < bits[2])


def test_the_bound_weighs_a_thousandth_of_the_whole_chain():
    noise = Noise(steps=250, learned_variance=True)
    t = T // 4
    x_t = objective.noised(X_0, EPS, t, noise)
    loss, parts = objective.diffusion_loss(
        with_v(EPS + 0.1, 0.3), X_0, x_t, EPS, t, noise
    )
    np.testing.assert_allclose(parts["mse"], 0.01, rtol=1e-4)
    np.testing.assert_allclose(loss, parts["mse"] + 0.25 * parts["bound"], rtol=1e-6)


def test_the_bound_teaches_the_variance_and_not_the_mean():
    simple = jax.grad(lambda eps: loss_of(eps, Noise())[0].sum())(EPS + 0.2)
    hybrid = jax.grad(lambda out: loss_of(out, LEARNED)[0].sum())
    pull = hybrid(with_v(EPS + 0.2, 0.1))
    np.testing.assert_array_equal(pull[..., :3], simple)
    assert np.all(np.isfinite(pull)) and np.all(np.any(pull[..., 3:] != 0, (1, 2, 3)))


def test_gradients_are_finite_for_a_network_that_is_far_off():
    pull = jax.grad(lambda out: loss_of(out, LEARNED)[0].sum())
    for v in (-1.0, 1.0, 5.0):
        assert np.all(np.isfinite(pull(with_v(EPS * 30, v))))


def test_losses_are_float32_also_for_bfloat16_networks():
    output = with_v(EPS, 0.0).astype(jnp.bfloat16)
    loss, metrics = jax.jit(lambda out: loss_of(out, LEARNED))(output)
    assert {loss.dtype, *(m.dtype for m in metrics.values())} == {jnp.dtype("float32")}


def test_vectors_are_noised_like_images():
    noise = Noise(predicts="x0")
    z, eps = X_0.reshape(6, -1), EPS.reshape(6, -1)
    z_t = objective.noised(z, eps, T, noise)
    np.testing.assert_array_equal(z_t, X_T.reshape(6, -1))
    loss, _ = objective.diffusion_loss(z + 0.5, z, z_t, eps, T, noise)
    np.testing.assert_allclose(loss, 0.25, rtol=1e-5)


@pytest.mark.parametrize("learned", [False, True])
def test_the_wrong_number_of_channels_is_refused(learned):
    noise = Noise(learned_variance=learned)
    output = EPS if learned else with_v(EPS, 0.0)
    with pytest.raises(BadInput, match="learned_variance"):
        loss_of(output, noise)


def test_times_are_uniform_over_the_whole_chain():
    t = objective.draw_times(jax.random.key(2), 50_000, Noise(steps=10))
    assert t.dtype == jnp.int32
    share = np.bincount(t, minlength=10) / len(t)
    np.testing.assert_allclose(share, 0.1, atol=0.01)


@pytest.mark.parametrize("power", [0.5, 2.0])
def test_a_power_moves_the_times(power):
    noise = Noise(time_power=power)
    t = objective.draw_times(jax.random.key(3), 50_000, noise)
    assert t.min() >= 0 and t.max() <= 999
    assert abs(float(t.mean()) / 1000 - 1 / (1 + power)) < 0.01


def test_the_likelihood_of_all_256_values_sums_to_one():
    values = jnp.arange(256) / 127.5 - 1
    for mean, log_scale in [(0.0, -1.0), (0.97, -3.0), (-1.4, 0.5)]:
        logs = objective.discretised_log_likelihood(values, mean, log_scale)
        np.testing.assert_allclose(jnp.exp(logs).sum(), 1, atol=1e-5)


def test_the_divergence_of_two_normals():
    """Against an integral over a fine grid."""
    x = np.linspace(-20, 20, 200_001)
    p = np.exp(-((x - 0.5) ** 2) / 2 / 0.3) / np.sqrt(2 * np.pi * 0.3)
    log_q = -((x + 1) ** 2) / 2 / 2.0 - 0.5 * np.log(2 * np.pi * 2.0)
    log_p = -((x - 0.5) ** 2) / 2 / 0.3 - 0.5 * np.log(2 * np.pi * 0.3)
    integral = np.sum(p * (log_p - log_q)) * (x[1] - x[0])
    ours = objective.gaussian_kl(0.5, np.log(0.3), -1.0, np.log(2.0))
    np.testing.assert_allclose(ours, integral, rtol=1e-5)


def test_the_cosine_chain_forgets_the_image():
    row = rows("cosine", 1000, 1000)
    top = type(row.now)(row.ab[0], row.rest[0])
    assert np.all(objective.prior_bits(X_0, top) < 1e-6)
