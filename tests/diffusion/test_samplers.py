"""Samplers: perfect denoisers, normal distributions, inversion, keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.diffusion import samplers
from dalle2_jax.diffusion.process import q_sample
from dalle2_jax.diffusion.schedule import (
    Noise,
    analytic_rows,
    full_table,
    inverse_rows,
    resampled_rows,
    rows,
)
from dalle2_jax.errors import BadInput

ROWS = rows("cosine", 1000, 12)
KEYS = jax.random.split(jax.random.key(1), 4)
X_0, EPS = jax.random.normal(jax.random.key(0), (2, 4, 5, 5, 3))
MEAN, STD = 0.4, 0.6
FULL = full_table("cosine", 1000)
STEPS = {
    "ddpm": samplers.ddpm,
    "ddpm_beta": samplers.ddpm_beta,
    "ddim": samplers.ddim(),
    "ddim_half": samplers.ddim(0.5),
    "ddim_one": samplers.ddim(1.0),
}
each_step = pytest.mark.parametrize("name", STEPS)


def normal_eps(x, t):
    """The best guess of the noise where all data are N(MEAN, STD^2); x [b, d]."""
    ab = jnp.asarray(FULL.ab)[t][:, None]
    rest = jnp.asarray(FULL.rest)[t][:, None]
    return jnp.sqrt(rest) * (x - jnp.sqrt(ab) * MEAN) / (ab * STD**2 + rest)


def swirl(x, t):
    """Some network, elementwise, that is not linear; x [b, y, x, c]."""
    return jnp.sin(3 * x) + jnp.cos(t / 300.0).reshape(-1, 1, 1, 1)


NORMAL = samplers.denoiser(normal_eps, Noise(), None)
SWIRL = samplers.denoiser(swirl, Noise(), 1.0)


def walk(step, denoise, table, samples=4096, width=8):
    keys = jax.random.split(jax.random.key(3), samples)
    x_T = samplers.initial_noise(keys, (width,))
    return samplers.sample(step, denoise, x_T, table, keys)


@each_step
def test_a_perfect_denoiser_returns_the_image(name):
    def denoise(x, row):
        return samplers.Prediction(X_0, None)

    x_T = q_sample(X_0, EPS, ROWS.ab[0])
    x = samplers.sample(STEPS[name], denoise, x_T, ROWS, KEYS)
    np.testing.assert_allclose(x, X_0, atol=1e-5)


@each_step
@pytest.mark.parametrize("predicts", ["eps", "x0", "v"])
def test_a_network_of_any_kind_that_knows_one_image_returns_it(name, predicts):
    """Outputs are made from x itself, so that every conversion is in the loop."""

    def model(x, t):
        ab = jnp.asarray(FULL.ab)[t].reshape(-1, 1, 1, 1)
        eps = (x - jnp.sqrt(ab) * X_0) / jnp.sqrt(1 - ab)
        v = jnp.sqrt(ab) * eps - jnp.sqrt(1 - ab) * X_0
        return {"eps": eps, "x0": X_0, "v": v}[predicts]

    denoise = samplers.denoiser(model, Noise(predicts=predicts), None)
    x = samplers.sample(STEPS[name], denoise, EPS, ROWS, KEYS)
    np.testing.assert_allclose(x, X_0, atol=1e-3)


@each_step
def test_samples_of_a_normal_distribution(name):
    x = walk(STEPS[name], NORMAL, rows("cosine", 1000, 200))
    np.testing.assert_allclose(x.mean(), MEAN, atol=0.02)
    np.testing.assert_allclose(x.std(), STD, rtol=0.03)


def test_the_right_variance_needs_few_steps():
    """The reverse of a normal chain is normal, its variance in the learned range."""
    table = rows("cosine", 1000, 8)

    def column(a):
        return jnp.zeros(1000).at[table.t].set(a.astype(np.float32))

    spread = STD**2 * table.rest / (table.ab * STD**2 + table.rest)  # of x_0 | x_t
    of_x_0 = table.beta * np.sqrt(table.ab_next) / table.rest
    share = np.log(table.variance + of_x_0**2 * spread) - table.log_variance
    share = column(share / (table.log_beta - table.log_variance))
    assert np.all((share[table.t[:-1]] > 0) & (share[table.t[:-1]] < 1))

    def model(x, t):
        v = jnp.broadcast_to(2 * share[t][:, None] - 1, x.shape)
        return jnp.concatenate([normal_eps(x, t), v], axis=-1)

    learned = samplers.denoiser(model, Noise(learned_variance=True), None)
    std = {
        "learned": walk(samplers.ddpm, learned, table).std(),
        "posterior": walk(samplers.ddpm, NORMAL, table).std(),
        "beta": walk(samplers.ddpm_beta, NORMAL, table).std(),
    }
    np.testing.assert_allclose(std["learned"], STD, rtol=0.01)
    assert std["posterior"] < 0.97 * STD and std["beta"] > 1.03 * STD


def test_inversion_then_sampling_returns_the_input():
    x_0 = MEAN + STD * jax.random.normal(jax.random.key(4), (4, 16))
    error = []
    for steps in (25, 250):
        down = rows("cosine", 1000, steps)
        up = inverse_rows(down)
        x_T = samplers.sample(samplers.ddim_inverse, NORMAL, x_0, up, KEYS)
        back = samplers.sample(samplers.ddim(), NORMAL, x_T, down, KEYS)
        error.append(float(jnp.abs(back - x_0).max()))
    assert error[1] < 0.03 and error[1] < error[0] / 4


def test_inversion_of_a_perfect_denoiser_is_exact():
    def denoise(x, row):
        return samplers.Prediction(X_0, None)

    x = q_sample(X_0, EPS, ROWS.ab[-1])
    x_T = samplers.sample(samplers.ddim_inverse, denoise, x, inverse_rows(ROWS), KEYS)
    np.testing.assert_allclose(x_T, q_sample(X_0, EPS, ROWS.ab[0]), atol=3e-3)


def test_inversion_turns_data_into_noise():
    x_0 = MEAN + STD * jax.random.normal(jax.random.key(5), (4, 20_000))
    up = inverse_rows(rows("cosine", 1000, 250))
    x_T = samplers.sample(samplers.ddim_inverse, NORMAL, x_0, up, KEYS)
    np.testing.assert_allclose([x_T.mean(), x_T.std()], [0, 1], atol=0.03)


@each_step
def test_a_sample_depends_on_its_own_key_alone(name):
    def run(x_T, keys):
        return samplers.sample(STEPS[name], SWIRL, x_T, ROWS, keys)

    together = run(samplers.initial_noise(KEYS, (5, 5, 3)), KEYS)
    for order in ([2], [3, 0]):
        keys = KEYS[jnp.array(order)]
        apart = run(samplers.initial_noise(keys, (5, 5, 3)), keys)
        np.testing.assert_allclose(apart, together[jnp.array(order)], atol=1e-5)


def test_noise_is_that_of_the_sample_and_the_step():
    def seen(denoise, x, row, noise):
        return x + noise

    x = samplers.sample(seen, None, jnp.zeros((4, 2, 3)), ROWS, KEYS)
    noise = [
        sum(jax.random.normal(jax.random.fold_in(key, i), (2, 3)) for i in range(12))
        for key in KEYS
    ]
    np.testing.assert_allclose(x, jnp.stack(noise), atol=1e-5)


def test_initial_noise_is_normal_and_no_steps_noise():
    keys = jax.random.split(jax.random.key(6), 500)
    x_T = samplers.initial_noise(keys, (100,))
    first = jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, 0), (100,)))(
        keys
    )
    np.testing.assert_allclose([x_T.mean(), x_T.std()], [0, 1], atol=0.02)
    assert abs(np.corrcoef(x_T.ravel(), first.ravel())[0, 1]) < 0.02


def test_only_eta_lets_keys_matter():
    other = jax.random.split(jax.random.key(9), 4)
    for name, same in (("ddim", True), ("ddim_half", False), ("ddpm", False)):
        a, b = (
            samplers.sample(STEPS[name], SWIRL, EPS, ROWS, k) for k in (KEYS, other)
        )
        assert bool(jnp.all(a == b)) == same, name


def test_tables_are_arguments_of_a_compiled_sampler():
    traced = []

    def run(table, x_T, keys):
        traced.append(table)
        return samplers.sample(samplers.ddpm, SWIRL, x_T, table, keys)

    compiled = jax.jit(run)
    for table in (ROWS, rows("linear", 1000, 12)):
        plain = samplers.sample(samplers.ddpm, SWIRL, EPS, table, KEYS)
        np.testing.assert_allclose(compiled(table, EPS, KEYS), plain, atol=1e-5)
    assert len(traced) == 1


def test_the_network_is_told_steps_of_the_full_chain():
    told = []

    def model(x, t):
        jax.debug.callback(lambda t: told.append(np.asarray(t)), t, ordered=True)
        return x

    denoise = samplers.denoiser(model, Noise(), None)
    samplers.sample(samplers.ddim(), denoise, EPS, ROWS, KEYS)
    jax.effects_barrier()
    np.testing.assert_array_equal(np.stack(told), np.repeat(ROWS.t[:, None], 4, axis=1))
    assert told[0].dtype == np.int32


def test_x_0_is_clipped_only_when_asked():
    row = type(ROWS)(*(column[0] for column in ROWS))

    def far(x, t):
        return 100 * x

    noise = Noise(predicts="x0")
    clipped = samplers.denoiser(far, noise, 2.0)(X_0, row).x_0
    assert jnp.abs(clipped).max() == 2
    free = samplers.denoiser(far, noise, None)(X_0, row).x_0
    np.testing.assert_array_equal(free, 100 * X_0)


def test_samples_are_float32_also_of_bfloat16_networks():
    def model(x, t):
        return swirl(x, t).astype(jnp.bfloat16)

    denoise = samplers.denoiser(model, Noise(), None)
    for name in STEPS:
        x = samplers.sample(STEPS[name], denoise, EPS.astype(jnp.bfloat16), ROWS, KEYS)
        assert x.dtype == jnp.float32 and bool(jnp.all(jnp.isfinite(x)))


@pytest.mark.parametrize("eta", [-0.1, 1.5])
def test_eta_has_bounds(eta):
    with pytest.raises(BadInput, match="eta"):
        samplers.ddim(eta)


def test_every_sample_may_have_its_own_eta():
    eta = jnp.array([0.0, 0.0, 1.0, 1.0]).reshape(4, 1, 1, 1)
    mixed = samplers.sample(samplers.ddim(eta), SWIRL, EPS, ROWS, KEYS)
    for name, some in (("ddim", slice(0, 2)), ("ddim_one", slice(2, 4))):
        plain = samplers.sample(STEPS[name], SWIRL, EPS, ROWS, KEYS)
        np.testing.assert_allclose(mixed[some], plain[some], atol=1e-4)


def test_resampling_walks_every_level_again_and_the_last_step_once():
    twice = resampled_rows(ROWS, 3)
    assert len(twice.t) == 5 * (len(ROWS.t) - 1) + 1
    np.testing.assert_array_equal(resampled_rows(ROWS, 1).ab, ROWS.ab)
    np.testing.assert_array_equal(twice.ab[1:], twice.ab_next[:-1])  # one chain


@pytest.mark.parametrize("times", [1, 4])
def test_inpainting_of_a_normal_distribution_keeps_known_and_draws_the_rest(times):
    """Independent pixels: the unknown ones must still have their own mean and std."""
    known = jnp.zeros((1, 8)).at[:, :4].set(1)
    step = samplers.inpainting(samplers.ddpm, jnp.full((1, 8), 3.0), known)
    table = resampled_rows(rows("cosine", 1000, 250), times)
    x = walk(step, NORMAL, table)
    np.testing.assert_allclose(x[:, :4], 3.0, atol=1e-5)
    assert abs(float(x[:, 4:].mean()) - MEAN) < 0.03
    assert abs(float(x[:, 4:].std()) - STD) < 0.03


def test_dpm_solver_of_a_perfect_denoiser_returns_the_image():
    def denoise(x, row):
        return samplers.Prediction(X_0, None)

    np.testing.assert_allclose(samplers.dpm_solver(denoise, EPS, ROWS), X_0, atol=1e-5)


def test_dpm_solver_follows_the_flow_of_ddim_in_fewer_steps():
    keys = jax.random.split(jax.random.key(3), 512)
    x_T = samplers.initial_noise(keys, (8,))
    fine = rows("cosine", 1000, 1000)
    exact = samplers.sample(samplers.ddim(), NORMAL, x_T, fine, keys)
    table = rows("cosine", 1000, "logsnr20")
    assert len(table.t) == 20 and (table.t[0], table.t[-1]) == (999, 0)
    second = samplers.dpm_solver(NORMAL, x_T, table)
    first = samplers.sample(samplers.ddim(), NORMAL, x_T, table, keys)
    errors = [float(jnp.abs(x - exact).mean()) for x in (second, first)]
    assert errors[0] < 0.02 and errors[0] < errors[1] / 3


@pytest.mark.parametrize("steps", ["logsnr40", "25"])  # the last of 25 leaps to 0
def test_dpm_solver_draws_from_a_normal_distribution(steps):
    keys = jax.random.split(jax.random.key(3), 4096)
    x_T = samplers.initial_noise(keys, (8,))
    x = samplers.dpm_solver(NORMAL, x_T, rows("cosine", 1000, steps))
    np.testing.assert_allclose(x.mean(), MEAN, atol=0.02)
    np.testing.assert_allclose(x.std(), STD, rtol=0.03)


def test_analytic_variances_need_few_steps():
    """E eps^2 is known for normal data; eight steps then keep the spread."""
    full = full_table("cosine", 1000)
    square = full.rest / (full.ab * STD**2 + full.rest)  # E[eps | x]^2 over the data
    table = rows("cosine", 1000, 8)
    better = analytic_rows(table, tuple(square), 1000)
    analytic, posterior = (
        walk(samplers.ddpm, NORMAL, t).std() for t in (better, table)
    )
    np.testing.assert_allclose(analytic, STD, rtol=0.015)
    assert posterior < 0.97 * STD
    with pytest.raises(BadInput, match="mean square of the network's eps"):
        analytic_rows(table, (), 1000)


def test_dynamic_thresholding_scales_what_static_thresholding_cuts():
    x = jnp.stack([jnp.linspace(-4, 4, 101), jnp.linspace(-0.5, 0.5, 101)])[..., None]
    bounded = samplers.bounded(x, 1.0, 1.0)
    np.testing.assert_allclose(bounded[0], x[0] / 4, atol=1e-6)  # by its largest value
    np.testing.assert_array_equal(bounded[1], x[1])  # already within
    np.testing.assert_array_equal(samplers.bounded(x, 1.0), jnp.clip(x, -1, 1))
