"""Parity of single evaluations: Karlo's prior, decoder, upsamplers; ADM's U-Nets."""

import dataclasses

import jax
import numpy as np

from dalle2_jax.convert import karlo
from dalle2_jax.convert.parity_clip import to_ours, to_theirs
from dalle2_jax.convert.rename import import_params
from dalle2_jax.decoder import decoder as decoders
from dalle2_jax.decoder import upsampler as upsamplers
from dalle2_jax.decoder.decoder import Condition, Decoder
from dalle2_jax.decoder.upsampler import Upsampler, enlarge
from dalle2_jax.layers.init import param_shapes
from dalle2_jax.prior import diffusion as priors
from dalle2_jax.prior.diffusion import Prior, Text, from_scaled


def import_prior(case, config):
    """(PriorConfig, params) of a diffusers PriorTransformer."""
    cfg = karlo.prior_config(config)
    shapes = param_shapes(Prior(cfg), *priors.example(cfg))
    return cfg, import_params(case.params, karlo.prior_table(cfg), shapes, case.path)


def import_decoder(case):
    """(DecoderConfig, params) of a diffusers decoder and its text projections."""
    cfg = karlo.decoder_config(case.config["decoder"], case.config["text_proj"])
    shapes = param_shapes(Decoder(cfg), *decoders.example(cfg))
    table = karlo.decoder_table(cfg, shapes)
    return cfg, import_params(case.params, table, shapes, case.path)


def import_upsamplers(case):
    """(UpsamplerConfig, params of the first steps, params of the last step)."""
    small = case.inputs["image_small"].shape[-1]
    side = case.config["super_res"]["sample_size"]
    cfg = karlo.upsampler_config(case.config["super_res"], side // small)
    shapes = param_shapes(Upsampler(cfg), *upsamplers.example(cfg))
    rows = {
        module: [
            row._replace(theirs=f"{module}/{row.theirs}")
            for row in karlo.upsampler_table(cfg, shapes)
        ]
        for module in ("super_res_first", "super_res_last")
    }
    keys = {m: {k for k in case.params if k.startswith(f"{m}/")} for m in rows}
    first, last = keys
    return cfg, *(
        import_params(case.params, rows[m], shapes, case.path, keys[other])
        for m, other in ((first, last), (last, first))
    )


def prior(case):
    """diffusers.PriorTransformer; without a mask that class is not causal either."""
    cfg, params = import_prior(case, case.config)
    inputs = case.inputs
    pooled, states = inputs["proj_embedding"], inputs["encoder_hidden_states"]

    def predict(cfg, mask):
        text = Text(pooled, states, mask)
        model = jax.jit(Prior(cfg).apply)
        return model(
            {"params": params}, inputs["hidden_states"], inputs["timestep"], text
        )

    mask = inputs["attention_mask"]
    predicted = predict(cfg, mask)
    free = dataclasses.replace(cfg, causal=False)
    return {
        "predicted_image_embedding": predicted,
        "predicted_image_embedding_nomask": predict(free, np.ones_like(mask)),
        "post_process_latents": from_scaled(cfg, params, predicted),
    }


def guidance_condition(inputs, states):
    """Karlo's doubled batch: the first half without z_i, the second with it."""
    z_image = inputs["image_embeddings"]
    return Condition(
        z_image=np.concatenate([np.zeros_like(z_image), z_image]),
        pooled=inputs["prompt_embeds"],
        states=states,
        mask=inputs["text_mask"],
        keep_image=np.repeat(np.float32([0, 1]), len(z_image)),
    )


def decoder(case):
    """diffusers.UNet2DConditionModel with UnCLIPTextProjModel."""
    cfg, params = import_decoder(case)
    inputs = case.inputs
    x_t, t = to_ours(inputs["sample"]), inputs["timestep"]

    def run(x_t, t, cond):
        apply = jax.jit(lambda *a: Decoder(cfg).apply(*a, mutable=["intermediates"]))
        out, kept = apply({"params": params}, x_t, t, cond)
        kept = {name: value[0] for name, value in kept["intermediates"].items()}
        return to_theirs(out), kept["time"], kept["context"]

    both = guidance_condition(inputs, inputs["text_encoder_hidden_states"])
    half = len(x_t) // 2
    cond = jax.tree.map(lambda a: a[half:], both)
    sample, time, context = run(x_t, t, both)
    _, time_half, context_half = run(x_t[half:], t[half:], cond)
    seen = np.ones((len(x_t), cfg.tokens), bool)
    return {
        "sample": sample,
        "sample_nomask": run(x_t, t, both._replace(mask=None))[0],
        "text_hidden_states": context,
        "additive_clip_time_embeddings": time,
        "text_hidden_states_noguidance": context_half,
        "additive_clip_time_embeddings_noguidance": time_half,
        "attention_mask": np.concatenate([seen, inputs["text_mask"]], axis=1),
    }


def upsampler(case):
    """Two diffusers.UNet2DModel: for the first steps and for the last."""
    cfg, first, last = import_upsamplers(case)
    x_t, t = to_ours(case.inputs["latents"]), case.inputs["timestep"]
    low = to_ours(case.inputs["image_small"])
    model = jax.jit(Upsampler(cfg).apply)
    return {
        "image_upscaled": to_theirs(enlarge(low, x_t.shape, cfg.resize)),
        "sample_first": to_theirs(model({"params": first}, x_t, t, low)),
        "sample_last": to_theirs(model({"params": last}, x_t, t, low)),
    }


UNCLIP_FAMILIES = {
    "prior_diffusers": prior,
    "prior_diffusers_norms": prior,
    "decoder_diffusers": decoder,
    "upsampler_diffusers": upsampler,
}
