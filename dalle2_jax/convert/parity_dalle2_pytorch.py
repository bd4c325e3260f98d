"""Parity of DALLE2-pytorch's diffusion prior: network, process and both loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.config import build
from dalle2_jax.convert.dalle2_pytorch import import_prior
from dalle2_jax.diffusion.guidance import guided
from dalle2_jax.diffusion.objective import diffusion_loss, noised, row_at
from dalle2_jax.diffusion.process import posterior_mean
from dalle2_jax.diffusion.samplers import ddim, ddpm, denoiser
from dalle2_jax.diffusion.schedule import Noise, rows
from dalle2_jax.prior.dalle2_pytorch import Dalle2PytorchConfig, Dalle2PytorchPrior
from dalle2_jax.prior.diffusion import Text, nothing


def prior(case):
    """dalle2_pytorch.DiffusionPrior with its DiffusionPriorNetwork."""
    config = {"prior": {**case.config["prior"], "net": case.config["network"]}}
    made = import_prior(case.params, config, case.path)
    cfg = build(Dalle2PytorchConfig, made.config["model"])
    noise = build(Noise, made.config["noise"])
    text, inputs = _text(cfg, case.inputs), case.inputs
    t = inputs["times"]
    apply = jax.jit(Dalle2PytorchPrior(cfg).apply)
    model = functools.partial(apply, {"params": made.params})
    strong = guided(model, text, nothing(text), case.config["cond_scale"])
    x_t, x_0 = inputs["image_embed_noisy"], strong(inputs["image_embed_noisy"], t)
    row = row_at(t, noise, 2)
    z, eps = inputs["image_embed"], inputs["noise"]
    z_t = noised(z, eps, t, noise)
    loss, _ = diffusion_loss(model(z_t, t, text), z, z_t, eps, t, noise)
    loops = {
        "ddpm": (ddpm, str(noise.steps)),
        "ddim": (ddim(1.0), f"lucid{case.config['ddim_steps']}"),
    }
    found = {
        "pred": model(x_t, t, text),
        "pred_null": model(x_t, t, nothing(text)),
        "pred_cond_scale": x_0,
        "x_start": x_0,
        "q_sample": z_t,
        "p_losses": loss.mean(),
        "posterior_mean": posterior_mean(x_0, x_t, row),
        "posterior_variance": row.variance,
        "posterior_log_variance": jnp.log(jnp.maximum(row.variance, 1e-20)),
    }
    for name, (step, spec) in loops.items():
        table = rows(noise.schedule, noise.steps, spec)
        draws = inputs[f"{name}_noise"]
        denoise = denoiser(strong, noise, None)
        z = _loop(step, denoise, inputs["init_noise"], table, draws)
        found[f"{name}_image_embed"] = z / cfg.radius
        drawn = np.ones(noise.steps) if name == "ddpm" else table.rest_next > 0
        found[f"{name}_noise_used"] = drawn.sum().astype(np.int32)
    return found


DALLE2_PYTORCH_FAMILIES = {
    "dalle2_pytorch_prior": prior,
    "dalle2_pytorch_prior_noenc": prior,
}


def _text(cfg, inputs):
    """Text whose padding is where a state is exactly zero."""
    pooled = inputs["text_embed"]
    states = inputs.get("text_encodings", np.zeros((len(pooled), 0, cfg.clip), "f"))
    return Text(pooled, states, (states != 0).any(-1), np.ones(len(pooled), "f"))


def _loop(step, denoise, x, table, draws):
    """A walk along the table with recorded noise."""

    def body(x, scanned):
        row, noise = scanned
        return step(denoise, x, row, noise), None

    missing = len(table.t) - len(draws)
    draws = np.pad(draws, ((0, missing), (0, 0), (0, 0)))
    table = jax.tree.map(lambda a: jnp.asarray(a, a.dtype.kind + "4"), table)
    return jax.lax.scan(body, jnp.asarray(x), (table, jnp.asarray(draws)))[0]
