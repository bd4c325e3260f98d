"""Diffusion priors of DALLE2-pytorch and LAION: the table, both ways.

The keys alone tell every size; a configuration is checked against them. Sampling is
that of 1.15.6, except for the grid of the DDIM steps, which goes with the generation.
"""

import re
from typing import NamedTuple

import numpy as np

from dalle2_jax.config import plain
from dalle2_jax.convert.dalle2_generations import (
    GENERATIONS,
    NET_FIELDS,
    ONE_NULL,
    PRIOR_FIELDS,
    STACK,
    THREE_NULLS,
    Generation,
    check_prior,
    recognise,
    unpack,
)
from dalle2_jax.convert.rename import (
    LINEAR,
    SAME,
    Row,
    export_params,
    fused,
    import_params,
    ones_in_front,
    weights,
)
from dalle2_jax.diffusion.schedule import BETAS, Noise, alpha_bars, betas
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.init import param_shapes
from dalle2_jax.prior.dalle2_pytorch import (
    Dalle2PytorchConfig,
    Dalle2PytorchPrior,
    example,
    frequencies,
)

STAGE = "prior_dalle2_pytorch"


BLOCK = [  # theirs, ours, layout
    ("0.null_kv", ("attention/null_kv",), SAME),
    ("0.norm.g", ("norm_1/scale",), SAME),
    ("0.to_q.weight", ("attention/q/kernel",), LINEAR),
    (
        "0.to_kv.weight",
        ("attention/k/kernel", "attention/v/kernel"),
        fused(2, 0, LINEAR),
    ),
    ("0.to_out.0.weight", ("attention/out/kernel",), LINEAR),
    ("0.to_out.1.g", ("attention/norm_out/scale",), SAME),
    ("1.0.g", ("norm_2/scale",), SAME),
    ("1.1.weight", ("mlp/up/kernel", "mlp/gate/kernel"), fused(2, 0, LINEAR)),
    ("1.5.weight", ("mlp/down/kernel",), LINEAR),
]


class Found(NamedTuple):
    """A prior that is understood, its weights still in their spelling.

    constants: the keys of `state` that hold no weights.
    """

    generation: Generation
    cfg: Dalle2PytorchConfig
    noise: Noise
    sampling: dict
    state: dict
    rows: list
    constants: tuple


class Imported(NamedTuple):
    """An imported prior: its generation, config.json of the component, parameters."""

    generation: Generation
    config: dict
    params: dict


def prior_from(state, config):
    """(Dalle2PytorchConfig, table) of a state dict and the fields of `Saved.config`.

    Raises:
        BadInput: a generation that is not understood, a field that contradicts the
            keys, or one that would make another network.
    """
    generation = recognise(state, config.get("version"))
    check_prior(config)
    cfg = _sizes(state, generation, config)
    for theirs, ours in NET_FIELDS.items():
        said, found = (config.get("net") or {}).get(theirs), getattr(cfg, ours)
        if said is not None and said != found:
            raise BadInput(
                f"the configuration says {theirs} = {said}, the weights {found}; "
                "they are not of one prior."
            )
    return cfg, table(cfg)


def table(cfg):
    """Rows for a DiffusionPrior without its constants."""
    rows = [
        Row("net.learned_query", ("query",), SAME),
        Row(THREE_NULLS if cfg.nulls else ONE_NULL, ("null_states",), ones_in_front(1)),
        Row(
            f"{STACK}.rel_pos_bias.relative_attention_bias.weight",
            ("relative/embedding",),
            SAME,
        ),
        *_times(cfg),
    ]
    if cfg.nulls:
        rows += [
            Row("net.null_text_embeds", ("null_pooled",), ones_in_front(1)),
            Row("net.null_image_embed", ("null_z",), ones_in_front(1)),
        ]
    for name, ours, count in (
        ("text", "pooled", cfg.text_tokens),
        ("image", "z_noised", cfg.image_tokens),
    ):
        rows += weights(f"net.to_{name}_embeds.0", ours, LINEAR) if count > 1 else []
    for there, theirs, ours, layout in (
        (cfg.norm_in, "init_norm.g", "norm_in/scale", SAME),
        (cfg.norm_out, "norm.g", "norm_out/scale", SAME),
        (cfg.project_out, "project_out.weight", "z_image/kernel", LINEAR),
    ):
        rows += [Row(f"{STACK}.{theirs}", (ours,), layout)] if there else []
    block = BLOCK + [("1.3.g", ("mlp/norm/scale",), SAME)] * cfg.normformer
    for theirs, ours, layout in block:
        paths = tuple(f"layers/{path}" for path in ours)
        rows.append(Row(f"{STACK}.layers.{{i}}.{theirs}", paths, layout, cfg.depth))
    return rows


def constants(cfg, noise):
    """What such a state dict holds beside weights: {key: float32 array}."""
    state = {f"noise_scheduler.{k}": v for k, v in _schedule(noise).items()}
    if cfg.rotary:
        for i in range(cfg.depth):
            key = f"{STACK}.layers.{i}.0.rotary_emb.freqs"
            state[key] = frequencies(cfg.rotated)
    return {key: np.asarray(value, np.float32) for key, value in state.items()}


def read_prior(saved, config=None, where="weights", notes=None):
    """A file's content, as `unpack` takes it, -> Found. notes: as of `unpack`.

    Raises:
        BadInput: as `prior_from`, or a schedule that is not ours.
    """
    state, config, version = unpack(saved, config, notes)
    cfg, rows = prior_from(state, config)
    fields = PRIOR_FIELDS | config
    noise = _noise(fields)
    known = constants(cfg, noise)
    for key, value in known.items():
        _check_constant(state, key, value, where)
    generation = recognise(state, version)
    way = _sampling(fields, generation)
    return Found(generation, cfg, noise, way, state, rows, tuple(known))


def import_prior(saved, config=None, where="weights"):
    """A file's content, as `unpack` takes it, -> Imported.

    Raises:
        BadInput: as `read_prior`; a key too many or missing, or a wrong shape.
    """
    found = read_prior(saved, config, where)
    shapes = param_shapes(Dalle2PytorchPrior(found.cfg), *example(found.cfg))
    params = import_params(found.state, found.rows, shapes, where, found.constants)
    made = {
        "stage": STAGE,
        "model": plain(found.cfg),
        "noise": plain(found.noise),
        "sampling": found.sampling,
    }
    return Imported(found.generation, made, params)


def export_prior(cfg, noise, params, sample_steps=None):
    """(state dict of a DiffusionPrior, its configuration as JSON-able fields).

    sample_steps: DDIM steps that the configuration asks for; None: the whole chain.
    """
    state = {**export_params(params, table(cfg)), **constants(cfg, noise)}
    net = {theirs: getattr(cfg, ours) for theirs, ours in NET_FIELDS.items()}
    net |= {"num_timesteps": cfg.times or None, "ff_mult": _whole(cfg.mlp_ratio)}
    prior = {
        "net": net,
        "image_embed_dim": cfg.clip,
        "image_size": 224,
        "timesteps": noise.steps,
        "sample_timesteps": sample_steps,
        "predict_x_start": noise.predicts != "eps",
        "predict_v": noise.predicts == "v",
        "beta_schedule": noise.schedule,
        "condition_on_text_encodings": cfg.states,
        "sampling_clamp_l2norm": cfg.sphere,
        "init_image_embed_l2norm": cfg.sphere_start,
        "image_embed_scale": cfg.scale or None,
        "cond_drop_prob": 0.1 if cfg.nulls else 0.0,
    }
    version = next(g.last for g in GENERATIONS if _of(g, cfg))
    return state, {"prior": prior, "version": ".".join(map(str, version))}


def _whole(x):
    return int(x) if x == int(x) else x


def _of(generation, cfg):
    nulls = generation.null == THREE_NULLS
    return generation.attention == cfg.attention and nulls == cfg.nulls


def _sizes(state, generation, config):
    """Dalle2PytorchConfig from the shapes of a state dict."""
    first = f"{STACK}.layers.0"
    shape = {k: value.shape for k, value in state.items() if hasattr(value, "shape")}

    def rows(key, per):
        return shape[key][0] // per if key in shape else 0

    fields = PRIOR_FIELDS | config
    try:
        dim = shape["net.learned_query"][0]
        time = shape.get("net.to_time_embeds.0.weight")
        width = time[1] if time else shape["net.to_time_embeds.0.1.net.2.weight"][0]
        return Dalle2PytorchConfig(
            clip=dim,
            depth=len(_numbers(state)),
            heads=shape[f"{STACK}.rel_pos_bias.relative_attention_bias.weight"][1],
            head_width=shape[f"{first}.0.null_kv"][1],
            context=shape[generation.null][1],
            text_tokens=rows("net.to_text_embeds.0.weight", dim) or 1,
            time_tokens=width // dim,
            image_tokens=rows("net.to_image_embeds.0.weight", dim) or 1,
            times=time[0] if time else 0,
            mlp_ratio=shape[f"{first}.1.5.weight"][1] / dim,
            norm_in=f"{STACK}.init_norm.g" in state,
            norm_out=f"{STACK}.norm.g" in state,
            project_out=f"{STACK}.project_out.weight" in state,
            normformer=f"{first}.1.3.g" in state,
            rotary=f"{first}.0.rotary_emb.freqs" in state,
            states=fields["condition_on_text_encodings"],
            attention=generation.attention,
            nulls=generation.null == THREE_NULLS,
            scale=float(fields["image_embed_scale"] or 0),
            sphere=fields["sampling_clamp_l2norm"],
            sphere_start=fields["init_image_embed_l2norm"],
        )
    except (KeyError, IndexError, ValueError, ArithmeticError) as error:
        raise BadInput(f"the prior's weights are incomplete: {error}.") from error


def _numbers(state):
    """The numbers of the layers in a state dict."""
    found = (re.match(rf"{re.escape(STACK)}\.layers\.(\d+)\.", key) for key in state)
    return {match[1] for match in found if match}


def _times(cfg):
    if cfg.times:
        return [Row("net.to_time_embeds.0.weight", ("time/embedding",), SAME)]
    mlp = "net.to_time_embeds.0.1.net"
    names = [(f"{mlp}.0.0", "time_1"), (f"{mlp}.1.0", "time_2"), (f"{mlp}.2", "time_3")]
    return [row for theirs, ours in names for row in weights(theirs, ours, LINEAR)]


def _schedule(noise):
    """The schedule's buffers by their names there, from our betas: float64 arrays."""
    beta = betas(noise.schedule, noise.steps)
    ab = alpha_bars(beta)
    before = np.append(1.0, ab[:-1])
    variance = beta * (1 - before) / (1 - ab)
    return {
        "betas": beta,
        "alphas_cumprod": ab,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": np.sqrt(ab),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - ab),
        "log_one_minus_alphas_cumprod": np.log(1 - ab),
        "sqrt_recip_alphas_cumprod": np.sqrt(1 / ab),
        "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / ab - 1),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
        "posterior_mean_coef1": beta * np.sqrt(before) / (1 - ab),
        "posterior_mean_coef2": (1 - before) * np.sqrt(1 - beta) / (1 - ab),
        "p2_loss_weight": np.ones_like(ab),
    }


def _noise(fields):
    if fields["beta_schedule"] not in BETAS:
        raise BadInput(
            f"prior.beta_schedule {fields['beta_schedule']} is not supported; "
            f"{', '.join(BETAS)} are."
        )
    predicts = "x0" if fields["predict_x_start"] else "eps"
    predicts = "v" if fields["predict_v"] else predicts
    if fields["sampling_clamp_l2norm"] and predicts != "x0":
        raise BadInput(
            "prior.sampling_clamp_l2norm is supported for priors that predict x_0 only."
        )
    return Noise(fields["beta_schedule"], fields["timesteps"], predicts)


def _check_constant(state, key, ours, where):
    """Refuses a schedule or frequencies other than ours; halves may be rounded."""
    if not isinstance(state.get(key), np.ndarray):
        raise BadInput(f"{where}: the key {key} is missing.")
    theirs = np.asarray(state[key], np.float64)
    if theirs.shape != ours.shape or not np.allclose(theirs, ours, 2e-3, 1e-5):
        raise BadInput(
            f"{where}: {key} is not what the configuration gives; check timesteps and "
            "beta_schedule."
        )


def _sampling(fields, generation):
    """Sampling settings of the component, by the names that unclip.Sampling has."""
    steps, kept = fields["timesteps"], fields["sample_timesteps"]
    fewer = kept is not None and kept < steps
    return {
        "steps": f"{generation.grid}{kept}" if fewer else str(steps),
        "sampler": "ddim" if fewer else "ancestral",
        "eta": 1.0,
        "guidance": 1.0,
        "clip": 0.0 if fields["predict_x_start"] else 1.0,
    }
