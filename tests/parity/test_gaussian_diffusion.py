"""Schedules, steps and losses against the numbers of guided-diffusion and GLIDE.

Each function makes our side of one part of the file, under the file's names; the last
test holds that together they name every recorded output.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from dalle2_jax.diffusion import guidance, objective, process, samplers
from dalle2_jax.diffusion.schedule import Noise, Rows, inverse_rows, kept_steps, rows

FILE = load_file(Path(__file__).parent / "data" / "gaussian_diffusion.safetensors")
SCHEDULES = sorted({name.split("/")[2] for name in FILE if name.startswith("input/t/")})
STEPS = sorted({n.split("/")[2] for n in FILE if n.startswith("output/step/")})
LOSSES = sorted({n.split("/")[2] for n in FILE if n.startswith("output/loss/")})
ETA, INEXACT = 0.5, ("eps_", "ddim_", "cond_ddim")  # see `tolerance`


def given(name):
    """An input, with channels last."""
    value = FILE[f"input/{name}"]
    return jnp.asarray(np.moveaxis(value, 1, -1) if value.ndim == 4 else value)


def table(schedule):
    """Our table, and the name of its schedule: "cosine_1000_10.15.20"."""
    kind, steps, *spec = schedule.split("_")
    return kind, rows(kind, int(steps), spec[0].replace(".", ",") if spec else steps)


def clean_first(table):
    """The rows in the order of the recorded tables."""
    return Rows(*(column[::-1] for column in table))


def rows_at(schedule):
    """The rows of the recorded steps of a schedule, [5, 1, 1, 1]."""
    index = FILE[f"input/t/{schedule}"]
    columns = clean_first(table(schedule)[1])
    return Rows(*(jnp.asarray(c[index]).reshape(-1, 1, 1, 1) for c in columns))


def tables(schedule):
    r = clean_first(table(schedule)[1])
    up = inverse_rows(table(schedule)[1])
    with jax.enable_x64(True):
        found = {
            "betas": r.beta,
            "alphas_cumprod": r.ab,
            "alphas_cumprod_prev": r.ab_next,
            # The original goes on to pure noise; we stop where samplers start.
            "alphas_cumprod_next": np.append(up.ab_next, 0.0),
            "posterior_variance": r.variance,
            "posterior_log_variance_clipped": r.log_variance,
            "log_one_minus_alphas_cumprod": np.log(r.rest),
            "sqrt_alphas_cumprod": process.q_sample(1.0, 0.0, r.now),
            "sqrt_one_minus_alphas_cumprod": process.q_sample(0.0, 1.0, r.now),
            "sqrt_recip_alphas_cumprod": process.x_0_of(1.0, 0.0, r.now),
            "sqrt_recipm1_alphas_cumprod": -process.x_0_of(0.0, 1.0, r.now),
            "posterior_mean_coef1": process.posterior_mean(1.0, 0.0, r),
            "posterior_mean_coef2": process.posterior_mean(0.0, 1.0, r),
            "timestep_map": r.t,
        }
        return {f"{schedule}/{k}": np.asarray(v) for k, v in found.items()}


def network(learned=True):
    output = given("model_output")
    return lambda x, t: output if learned else output[..., :3]


def denoiser(clip=None, learned=True, predicts="eps"):
    noise = Noise(learned_variance=learned, predicts=predicts)
    return samplers.denoiser(network(learned), noise, clip)


def one_step(schedule, clip):
    """What the original returns for one step, with and without clipping."""
    x, noise, row = given("x"), given("noise"), rows_at(schedule)
    denoise = denoiser(clip)
    prediction = denoise(x, row)
    mean, log_variance = samplers.reverse(prediction, x, row)
    last = row.ab == clean_first(table(schedule)[1]).ab[-1].astype(np.float32)
    ab = np.append(clean_first(table(schedule)[1]).ab, 0.0)
    up = ab[FILE[f"input/t/{schedule}"] + 1].reshape(-1, 1, 1, 1)
    up = row._replace(ab_next=jnp.asarray(up), rest_next=jnp.asarray(1 - up))
    assert last.sum() == 1 and up.ab_next[last] == 0
    return {
        "mean": mean,
        "log_variance": log_variance,
        "variance": jnp.exp(log_variance),
        "pred_xstart": prediction.x_0,
        "eps": process.eps_of(x, prediction.x_0, row.now),
        "p_sample": samplers.ddpm(denoise, x, row, noise),
        "ddim_sample_eta0": samplers.ddim(0.0)(denoise, x, row, noise),
        "ddim_sample_eta": samplers.ddim(ETA)(denoise, x, row, noise),
        "ddim_reverse_sample": samplers.ddim_inverse(denoise, x, up, noise),
    }


def variants(schedule):
    """Other means, variances, and classifier guidance; all with clipping."""
    x, noise, row = given("x"), given("noise"), rows_at(schedule)
    clipped, fixed = denoiser(1.0), denoiser(1.0, learned=False)
    start_x = denoiser(1.0, learned=False, predicts="x0")

    def gradient(x, t):
        return given("cond_grad")

    by_mean = guidance.classifier_ddpm(gradient)
    by_eps = guidance.classifier_guided(clipped, gradient)
    previous = given("model_output")[..., :3]
    return {
        "fixed_small": samplers.ddpm(fixed, x, row, noise),
        "fixed_large": samplers.ddpm_beta(fixed, x, row, noise),
        "start_x": samplers.ddpm(start_x, x, row, noise),
        "previous_x": samplers.draw(previous, row.log_variance, row, noise),
        "cond_p_sample": by_mean(clipped, x, row, noise),
        "cond_ddim_sample": samplers.ddim()(by_eps, x, row, noise),
    }


def steps(schedule):
    found = {f"{k}_noclip": v for k, v in one_step(schedule, None).items()}
    found |= {f"{k}_clip": v for k, v in one_step(schedule, 1.0).items()}
    found |= variants(schedule)
    return {f"step/{schedule}/{k}": v for k, v in found.items()}


def bounds(schedule, x_0, x_t, row):
    """The bound and its parts, with other variances and weights than we train with."""
    output, n = given("model_output"), len(table(schedule)[1].t)
    noise = Noise(learned_variance=True)
    bits = objective.output_bound(
        output[..., :3], output[..., 3:], x_0, x_t, row, noise
    )
    clipped = samplers.reverse(denoiser(1.0)(x_t, row), x_t, row)
    plain = samplers.reverse(denoiser()(x_t, row), x_t, row)
    small = samplers.reverse(denoiser(learned=False)(x_t, row), x_t, row)
    return {
        "kl/loss": bits,
        "rescaled_kl/loss": bits * n,
        "kl_fixed_small/loss": objective.bound(x_0, x_t, *small, row),
        "vb_terms_bpd_clip": objective.bound(x_0, x_t, *clipped, row),
        "vb_kl": objective.kl_bits(x_0, x_t, *plain, row),
    }


def losses(schedule):
    x_0, eps, output = given("x_start"), given("noise"), given("model_output")
    row, n = rows_at(schedule), len(table(schedule)[1].t)
    x_t = process.q_sample(x_0, eps, row.now)
    loss = functools.partial(objective.loss_at, x_0=x_0, x_t=x_t, eps=eps, row=row)
    hybrid, parts = loss(output, noise=Noise(steps=n, learned_variance=True))
    simple, _ = loss(output[..., :3], noise=Noise())
    start_x, _ = loss(output[..., :3], noise=Noise(predicts="x0"))
    same = jnp.zeros_like(x_0)
    top = table(schedule)[1].now
    found = bounds(schedule, x_0, x_t, row) | {
        "hybrid_rescaled_mse/loss": hybrid,
        "hybrid_rescaled_mse/mse": parts["mse"],
        "hybrid_rescaled_mse/vb": parts["bound"] * n / 1000,
        "hybrid_mse/loss": parts["mse"] + parts["bound"],
        "hybrid_mse/mse": parts["mse"],
        "hybrid_mse/vb": parts["bound"],
        "mse_fixed_large/loss": simple,
        "mse_fixed_large/mse": simple,
        "mse_start_x/loss": start_x,
        "mse_start_x/mse": start_x,
        "prior_bpd": objective.prior_bits(x_0, type(top)(top.ab[0], top.rest[0])),
        "q_sample": x_t,
        "q_posterior_mean": process.posterior_mean(x_0, x_t, row),
        "q_posterior_variance": same + row.variance,
        "q_posterior_log_variance_clipped": same + row.log_variance,
    }
    return {f"loss/{schedule}/{k}": v for k, v in found.items()}


def network_times(schedule):
    """The steps that a network is told."""
    told = []

    def model(x, t):
        return told.append(t) or x

    samplers.denoiser(model, Noise(), None)(given("x"), rows_at(schedule))
    return {
        f"model_timesteps/{schedule}": told[0],
        f"model_timesteps_rescaled/{schedule}": told[0].astype(jnp.float32),
    }


def the_rest():
    x, mean, scale = (given(f"nll_{k}") for k in ("x", "means", "log_scales"))
    return {
        "glide_fast27": kept_steps(1000, "fast27"),
        "nll_log_probs": objective.discretised_log_likelihood(x, mean, scale),
    }


def tolerance(name):
    """(relative, absolute). Re-deriving eps from x_0 cancels at small t."""
    if name.startswith(("loss/", "nll")):
        return (1e-4, 1e-5 if "q_" in name else 1e-7)
    if name.startswith("step/"):
        return (1e-4, 5e-4) if name.split("/")[2].startswith(INEXACT) else (1e-5, 1e-5)
    exact = name.startswith(("model_timesteps", "glide")) or "timestep_map" in name
    return (0, 0) if exact else (1e-9, 1e-300)


def compare(found):
    for name, ours in found.items():
        ours, theirs = np.asarray(ours), FILE[f"output/{name}"]
        ours = np.moveaxis(ours, -1, 1) if ours.ndim == 4 else ours
        assert ours.shape == theirs.shape, name
        rtol, atol = tolerance(name)
        np.testing.assert_allclose(ours, theirs, rtol, atol, err_msg=name)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_tables_in_float64(schedule):
    compare(tables(schedule))


@pytest.mark.parametrize("schedule", STEPS)
def test_one_step_of_every_sampler(schedule):
    compare(steps(schedule))


@pytest.mark.parametrize("schedule", LOSSES)
def test_losses(schedule):
    compare(losses(schedule))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_network_is_told_the_steps_of_the_full_chain(schedule):
    compare(network_times(schedule))


def test_fast27_and_the_likelihood_of_pixels():
    compare(the_rest())


def test_every_recorded_output_is_compared():
    parts = [(tables, SCHEDULES), (network_times, SCHEDULES), (steps, STEPS)]
    parts += [(losses, LOSSES)]
    ours = [name for part, names in parts for s in names for name in part(s)]
    theirs = [name.removeprefix("output/") for name in FILE if "output/" in name]
    assert sorted(ours + list(the_rest())) == sorted(theirs)
    assert len(theirs) == 302
