"""Parity of whole sampling loops: Karlo's prior, decoder and upsampler.

The originals keep their schedule in float32; ours is float64, so the outputs recorded
in float64 are the ones to meet.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.convert.parity_clip import to_ours, to_theirs
from dalle2_jax.convert.parity_unclip import (
    guidance_condition,
    import_decoder,
    import_prior,
    import_upsamplers,
)
from dalle2_jax.decoder.decoder import Decoder
from dalle2_jax.decoder.upsampler import Upsampler
from dalle2_jax.diffusion.guidance import guided
from dalle2_jax.diffusion.samplers import ddpm, denoiser
from dalle2_jax.diffusion.schedule import Noise, rows
from dalle2_jax.prior.diffusion import Prior, Text, from_scaled


def prior_loop(case):
    """Karlo's prior: guidance on x_0, clipped, small fixed variance."""
    cfg, params = import_prior(case, case.config["prior"])
    inputs = case.inputs
    text = Text(
        inputs["prompt_embeds"], inputs["text_enc_hid_states"], inputs["text_mask"]
    )
    null, cond = _halves(text)

    def network(params):
        def model(z, t, text):
            return Prior(cfg).apply({"params": params}, z, t, text)

        return guided(model, cond, null, case.config["guidance_scale"])

    noise = _noise(case, predicts="x0")
    clip = case.config["scheduler"]["clip_sample_range"]
    table, latents = _walk(
        case, network, params, inputs["prior_latents"], noise, clip, last=params
    )
    return {
        "timesteps": table.t,
        "latents_f64": latents,
        "image_embeddings_f64": from_scaled(cfg, params, latents[-1]),
    }


def decoder_loop(case):
    """Karlo's decoder: guidance on eps, learned variance of the conditional half."""
    cfg, params = import_decoder(case)
    inputs = case.inputs
    both = guidance_condition(inputs, inputs["text_enc_hid_states"])
    null, cond = _halves(both)

    def network(params):
        def model(x, t, cond):
            return Decoder(cfg).apply({"params": params}, x, t, cond)

        return guided(model, cond, null, case.config["guidance_scale"], True)

    x_T = to_ours(inputs["decoder_latents"])
    table, latents = _walk(case, network, params, x_T, _noise(case), 1.0, last=params)
    latents = jnp.moveaxis(latents, -1, 2)
    image = jnp.clip(latents[-1], -1, 1)
    return {"timesteps": table.t, "latents_f64": latents, "image_f64": image}


def upsampler_loop(case):
    """Karlo's upsampler: no guidance, another network for the last step."""
    cfg, first, last = import_upsamplers(case)
    low = to_ours(case.inputs["image_small"])

    def network(params):
        return lambda x, t: Upsampler(cfg).apply({"params": params}, x, t, low)

    x_T = to_ours(case.inputs["super_res_latents"])
    table, latents = _walk(case, network, first, x_T, _noise(case), 1.0, last=last)
    latents = jnp.moveaxis(latents, -1, 2)
    return {
        "timesteps": table.t,
        "latents_f64": latents,
        "image_f64": jnp.clip(latents[-1] / 2 + 0.5, 0, 1),
        "image_upscaled": to_theirs(jax.image.resize(low, x_T.shape, cfg.resize)),
    }


LOOP_FAMILIES = {
    "prior_karlo_loop": prior_loop,
    "decoder_karlo_loop": decoder_loop,
    "upsampler_karlo_loop": upsampler_loop,
}


def _noise(case, predicts="eps"):
    scheduler = case.config["scheduler"]
    return Noise(
        schedule="cosine",
        steps=scheduler["num_train_timesteps"],
        predicts=predicts,
        learned_variance=scheduler["variance_type"] == "learned_range",
    )


def _walk(case, network, params, x, noise, clip, last):
    """The loop with the recorded noise: (table, [x_T, ..., x_0]) in our layout.

    network: params -> model(x, t); last: the parameters of the last step.
    """
    steps = case.config["num_inference_steps"]
    table = rows(noise.schedule, noise.steps, steps)
    recorded = np.asarray(case.inputs["noise"])
    recorded = np.moveaxis(recorded, 2, -1) if recorded.ndim == 5 else recorded

    @jax.jit
    def step(params, x, row, noise_k):
        return ddpm(denoiser(network(params), noise, clip), x, row, noise_k)

    latents = [jnp.asarray(x)]
    for k in range(steps):
        row = jax.tree.map(lambda column, k=k: column[k], table)
        draws = recorded[k] if k < len(recorded) else np.zeros_like(recorded[0])
        weights = last if k == steps - 1 else params
        latents.append(step(weights, latents[-1], row, draws))
    return table, jnp.stack(latents)


def _halves(tree):
    """(first half, second half) of the batch of every leaf."""
    return (
        jax.tree.map(lambda a: a[: len(a) // 2], tree),
        jax.tree.map(lambda a: a[len(a) // 2 :], tree),
    )
