"""The equations: each undone by its inverse, the posterior by Bayes' rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.diffusion import process
from dalle2_jax.diffusion.schedule import Level, Rows, rows
from dalle2_jax.errors import BadInput

X_0, EPS = jax.random.normal(jax.random.key(0), (2, 5, 4, 4, 3))
AB = jnp.array([0.999, 0.9, 0.5, 0.1, 0.001]).reshape(5, 1, 1, 1)
PREDICTS = ["eps", "x0", "v"]


def test_each_unknown_is_found_again():
    x_t = process.q_sample(X_0, EPS, AB)
    v = process.v_of(X_0, EPS, AB)
    np.testing.assert_allclose(process.x_0_of(x_t, EPS, AB), X_0, atol=1e-4)
    np.testing.assert_allclose(process.eps_of(x_t, X_0, AB), EPS, atol=1e-4)
    np.testing.assert_allclose(process.x_0_of_v(x_t, v, AB), X_0, atol=1e-5)


@pytest.mark.parametrize("predicts", PREDICTS)
def test_a_network_that_meets_its_target_knows_x_0(predicts):
    x_t = process.q_sample(X_0, EPS, AB)
    output = process.target(X_0, EPS, AB, predicts)
    found = process.to_x_0(output, x_t, AB, predicts)
    np.testing.assert_allclose(found, X_0, atol=1e-4)


@pytest.mark.parametrize("predicts", PREDICTS)
def test_targets_of_unit_normals_are_unit_normals(predicts):
    x_0, eps = jax.random.normal(jax.random.key(1), (2, 100_000))
    target = process.target(x_0, eps, 0.3, predicts)
    assert abs(float(target.mean())) < 0.02 and abs(float(target.var()) - 1) < 0.02


def test_the_posterior_is_the_product_of_its_two_factors():
    """q(x_next | x_t, x_0) ~ q(x_next | x_0) q(x_t | x_next): precisions add."""
    table = rows("linear", 1000, 40)
    row = Rows(*(column[:-1] for column in table))
    alpha, x_0, x_t = 1 - row.beta, 0.7, -1.3
    precision = 1 / row.rest_next + alpha / row.beta
    pull = np.sqrt(row.ab_next) * x_0 / row.rest_next + np.sqrt(alpha) * x_t / row.beta
    np.testing.assert_allclose(row.variance, 1 / precision, rtol=1e-9)
    np.testing.assert_allclose(
        process.posterior_mean(x_0, x_t, row), pull / precision, rtol=2e-5
    )


def test_the_last_posterior_is_x_0_itself():
    row = Rows(*(column[-1] for column in rows("cosine", 1000, 1000)))
    np.testing.assert_allclose(process.posterior_mean(X_0, EPS, row), X_0, atol=1e-6)


def test_learned_variance_goes_between_its_bounds_in_log_space():
    row = Rows(*(column[3] for column in rows("cosine", 1000, 10)))
    low, middle, high = (
        jnp.exp(process.range_log_variance(v, row)) for v in (-1.0, 0.0, 1.0)
    )
    np.testing.assert_allclose(low, row.variance, rtol=1e-5)
    np.testing.assert_allclose(high, row.beta, rtol=1e-5)
    np.testing.assert_allclose(middle, np.sqrt(row.variance * row.beta), rtol=1e-5)


def test_a_level_is_exact_where_alpha_bar_alone_is_not():
    row = Rows(*(column[-1] for column in rows("cosine", 1000, 1000)))
    noise = np.sqrt(row.rest)
    exact = process.q_sample(0.0, jnp.float32(1), row.now)
    plain = process.q_sample(0.0, jnp.float32(1), jnp.float32(row.ab))
    assert abs(float(exact) / noise - 1) < 2e-7 < abs(float(plain) / noise - 1)
    np.testing.assert_allclose(plain, exact, rtol=1e-3)


def test_levels_are_trees():
    level = Level(AB, 1 - AB)
    x_t = jax.jit(process.q_sample)(X_0, EPS, level)
    np.testing.assert_allclose(x_t, process.q_sample(X_0, EPS, AB), atol=1e-6)


def test_an_unknown_prediction_is_named():
    for call in (process.to_x_0, process.target):
        with pytest.raises(BadInput, match="score"):
            call(X_0, EPS, AB, "score")
