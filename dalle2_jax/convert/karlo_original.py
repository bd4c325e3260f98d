"""Karlo's own files: the tables in its spelling, and what its file set is.

The files hold no sizes. Those that shapes do not show (width of a head, pixels) are the
published ones unless a configuration says otherwise.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from dalle2_jax.components import STAGES, shapes_of
from dalle2_jax.config import build
from dalle2_jax.convert.adm import MIDDLE_ONLY, guided_table
from dalle2_jax.convert.clip_folders import openai_files, openai_parts
from dalle2_jax.convert.containers import read, state_of
from dalle2_jax.convert.diffusers_configs import (
    decoder_json,
    prior_json,
    upsampler_json,
)
from dalle2_jax.convert.fields import GROUP, check_fields, optional
from dalle2_jax.convert.parts import File, Part, check_plain, shapes_for
from dalle2_jax.convert.rename import (
    LINEAR,
    SAME,
    Row,
    channel_major,
    export_params,
    fused,
    norm,
    ones_in_front,
    weights,
)
from dalle2_jax.diffusion.schedule import Noise
from dalle2_jax.errors import BadInput

HEAD_WIDTH = 64
SIDES = {"decoder": 64, "upsampler": 256}  # pixels of Karlo's pictures
PRIOR_LEAVES = [  # Karlo, ours
    ("time_embed.0", "time/in"),
    ("time_embed.2", "time/out"),
    ("clip_img_proj", "z_noised"),
    ("text_emb_proj", "pooled"),
    ("text_enc_proj", "states"),
    ("out_proj", "z_image"),
]
PREFIXES = {  # in front of every key of a component's file
    "prior": "model.",
    "decoder": "model.",
    "upsampler": "model_first_steps.",
    "upsampler_last": "model_last_step.",
}
WAYS = {  # noise and sampling of Karlo's stages
    "prior": (
        Noise(predicts="x0"),
        {
            "steps": "25",
            "guidance": 4.0,
            "clip": 10.0,
            "candidates": 1,
            "empty": True,
        },
    ),
    "decoder": (
        Noise(learned_variance=True),
        {"steps": "25", "guidance": 8.0, "clip": 1.0, "empty": True},
    ),
    "upsampler": (Noise(), {"steps": "7", "clip": 1.0}),
    "upsampler_last": (Noise(), {"steps": "7", "clip": 1.0}),
}
MARKS = {  # a key that only one kind of file has -> what the file is
    "model.prd_emb": "prior",
    "model.cf_param": "decoder",
    "model_first_steps.time_embed.0.weight": "upsampler",
    "mean": "stats",
    "visual.conv1.weight": "clip",
}
SET = ("clip", "prior", "stats", "decoder", "upsampler")


def prior_table(cfg):
    """Rows for Karlo's prior; "mean" and "std" come from the file of statistics."""
    block, paths = "transformer.resblocks.{i}", "layers/attention/"
    kernels, biases = (
        tuple(f"{paths}{part}/{leaf}" for part in "qkv") for leaf in ("kernel", "bias")
    )
    rows = [
        Row("positional_embedding", ("positions",), ones_in_front(1)),
        Row("prd_emb", ("query",), ones_in_front(2)),
        Row("mean", ("clip_mean",), SAME),
        Row("std", ("clip_std",), SAME),
        *norm("final_ln", "norm_out"),
        *norm(f"{block}.ln_1", "layers/norm_1", cfg.depth),
        *norm(f"{block}.ln_2", "layers/norm_2", cfg.depth),
        Row(
            f"{block}.attn.c_qkv.weight",
            kernels,
            fused(3, cfg.heads, LINEAR),
            cfg.depth,
        ),
        Row(f"{block}.attn.c_qkv.bias", biases, fused(3, cfg.heads, SAME), cfg.depth),
        *weights(f"{block}.attn.c_proj", f"{paths}out", LINEAR, cfg.depth),
        *weights(f"{block}.mlp.c_fc", "layers/mlp/up", LINEAR, cfg.depth),
        *weights(f"{block}.mlp.c_proj", "layers/mlp/down", LINEAR, cfg.depth),
    ]
    for theirs, ours in PRIOR_LEAVES:
        rows += weights(theirs, ours, LINEAR)
    return rows


def decoder_table(cfg, shapes):
    """Rows for Karlo's decoder, one tree with its text projections."""
    token_major = functools.partial(channel_major, cfg.tokens)
    tokens = "clip_tok_proj"
    return [
        *guided_table(cfg.unet, shapes, ours="unet/"),
        Row("cf_param", ("null_image",), SAME),
        *weights("clip_emb", "image_time", LINEAR),
        *weights("text_feat_proj", "text_time", LINEAR),
        *weights("text_seq_proj.0", "text_states", LINEAR),
        *norm("text_seq_proj.1", "text_norm"),
        Row(f"{tokens}.weight", ("image_tokens/kernel",), token_major(LINEAR)),
        Row(f"{tokens}.bias", ("image_tokens/bias",), token_major(SAME)),
    ]


def upsampler_table(cfg, shapes):
    """Rows for one of Karlo's super-resolution networks."""
    return guided_table(cfg.unet, shapes, ours="unet/")


def unet_fields(state, in_channels):
    """Fields of UNetConfig from the shapes of a U-Net in guided-diffusion's spelling.

    state: {key: array}; in_channels: of x_t. Widths of heads and groups are published
    ones.
    """
    shape = {key: array.shape for key, array in state.items()}
    found = {key.split(".")[1] for key in shape if key.startswith("output_blocks.")}
    entries = len(found)
    blocks = [f"output_blocks.{i}." for i in range(entries)]
    ups = sum(f"{b}{j}.in_layers.0.weight" in shape for b in blocks for j in (1, 2))
    levels, depth = ups + 1, entries // (ups + 1) - 1
    if depth < 1:
        raise ValueError("no whole level of output_blocks")
    channels = shape["input_blocks.0.0.weight"][0]
    firsts = [f"input_blocks.{1 + level * (depth + 1)}" for level in range(levels)]
    widths = [shape[f"{first}.0.out_layers.3.weight"][0] for first in firsts]
    found = [2**i for i, first in enumerate(firsts) if f"{first}.1.qkv.weight" in shape]
    if not found and "middle_block.1.qkv.weight" in shape:
        found = MIDDLE_ONLY
    rows = shape["input_blocks.1.0.emb_layers.1.weight"][0]
    return {
        "channels": channels,
        "multiples": [width / channels for width in widths],
        "depth": depth,
        "attend": found,
        "head_width": HEAD_WIDTH,
        "in_channels": in_channels,
        "out_channels": shape["out.2.weight"][0],
        "context_width": shape.get("middle_block.1.encoder_kv.weight", (0, 0))[1],
        "scale_shift": rows == 2 * widths[0],
    }


def _prior_fields(state):
    _, length, width = state["positional_embedding"].shape
    layers = {key.split(".")[2] for key in state if key.startswith("transformer.")}
    return {
        "clip": state["clip_img_proj.weight"].shape[1],
        "width": width,
        "depth": len(layers),
        "heads": max(1, width // HEAD_WIDTH),
        "context": length - 4,
        "text_width": state["text_enc_proj.weight"].shape[1],
        "null": "empty",
        "whiten": True,
    }


def _decoder_fields(state):
    unet = unet_fields(state, state["input_blocks.0.0.weight"].shape[1])
    wide, clip = state["clip_tok_proj.weight"].shape
    return {
        "size": SIDES["decoder"],
        "unet": unet,
        "clip": clip,
        "tokens": wide // unet["context_width"],
        "text_width": state["text_seq_proj.0.weight"].shape[1],
        "pooled_text": True,
    }


def _upsampler_fields(state):
    unet = unet_fields(state, state["input_blocks.0.0.weight"].shape[1] // 2)
    return {"size": SIDES["upsampler"], "unet": unet, "factor": 4, "resize": "bicubic"}


KINDS = {  # stage -> fields of its configuration from a state, its table
    "prior": (_prior_fields, lambda cfg, shapes: prior_table(cfg)),
    "decoder": (_decoder_fields, decoder_table),
    "upsampler": (_upsampler_fields, upsampler_table),
    "upsampler_last": (_upsampler_fields, upsampler_table),
}


def parts(source, override):
    """The parts of Karlo's files: the folder of the whole set, or one file of it.

    override: {"prior": {...}, "decoder": {...}, "upsampler": {...}}: fields of our
    configurations where the published ones do not hold; "clip": arguments of CLIP.
    """
    found = files_of(Path(source))
    if Path(source).is_dir() and (missing := [k for k in SET if k not in found]):
        raise BadInput(f"{source} lacks Karlo's {missing[0]}; download it again.")
    if ("prior" in found) != ("stats" in found):
        raise BadInput(
            f"{source}: Karlo's prior and ViT-L-14_stats.th belong together; give the "
            "folder that holds both."
        )
    kinds = dict.fromkeys(("clip", *KINDS), optional(GROUP))
    check_fields(override, kinds, "--config")
    override = {name: change for name, change in override.items() if change}
    if "clip" in found:
        (part,) = openai_parts(found["clip"], override.get("clip", {}))
        cfg = dataclasses.replace(part.cfg, unit=False)
        yield part._replace(cfg=cfg)
    for stage in ("prior", "decoder", "upsampler", "upsampler_last"):
        path = found.get("upsampler" if stage == "upsampler_last" else stage)
        if path:
            yield _part(stage, path, found, override)


def files_of(source):
    """{what: path} of Karlo's files in a folder, or for one file; by what they hold."""
    paths = [source]
    if source.is_dir():
        kinds = {".ckpt", ".th", ".pt", ".safetensors"}
        paths = sorted(p for p in source.iterdir() if p.suffix in kinds)
    found = {}
    for path in paths:
        kind = kind_of(_state(path))
        if kind in found:
            raise BadInput(f"{path} and {found[kind]} are both Karlo's {kind}.")
        if kind:
            found[kind] = path
    return found


def kind_of(state):
    """What a file of Karlo's is, from its keys; None: none of Karlo's."""
    return next((kind for key, kind in MARKS.items() if key in state), None)


def _state(path, notes=None):
    tree = read(path)
    if isinstance(tree, (tuple, list)) and len(tree) == 2:
        tree = {"mean": tree[0], "std": tree[1]}
    return state_of(tree, path, notes)


def _part(stage, path, found, override):
    """One network of a checkpoint; keys of the other stay out of it."""
    notes = []
    whole, prefix = _state(path, notes), PREFIXES[stage]
    state = {
        k.removeprefix(prefix): v for k, v in whole.items() if k.startswith(prefix)
    }
    others = {prefix for prefix in PREFIXES.values() if prefix != "model."}
    known = others if prefix in others else {prefix}
    if left := [k for k in whole if not k.startswith(tuple(known))]:
        raise BadInput(f"{path}: {left[0]} (one of {len(left)}) has no place in Karlo.")
    infer, table = KINDS[stage]
    try:
        fields = infer(state)
    except (KeyError, ValueError, IndexError, ArithmeticError) as error:
        raise BadInput(f"{path} is no complete {stage} of Karlo's: {error}.") from error
    if stage == "prior":
        state |= {name: np.ravel(a) for name, a in _state(found["stats"]).items()}
    change = override.get("upsampler" if stage == "upsampler_last" else stage, {})
    cfg = build(STAGES[stage][0], _merged(fields, change), f"{path}: {stage}")
    noise, way = WAYS[stage]
    rows = table(cfg, shapes_for(stage, cfg, state, path))
    return Part(stage, cfg, state, rows, str(path), noise, way, (), tuple(notes))


def _merged(fields, change):
    """Nested fields with some of them replaced."""
    nested = [
        name
        for name in change
        if isinstance(fields.get(name), dict) and isinstance(change[name], dict)
    ]
    inner = {name: _merged(fields[name], change[name]) for name in nested}
    return {**fields, **change, **inner}


def files(model):
    """Karlo's file set under its names, as far as the model holds it.

    Raises:
        BadInput: a component that Karlo's classes cannot express.
    """
    check_plain(model.clip.cfg, {"unit": False}, "Karlo")
    found = [] if model.clip.cfg.image is None else _clip_files(model)
    upsamplers = {}
    for stage, prefix in PREFIXES.items():
        part = getattr(model, stage)
        if part is None:
            continue
        CHECKS[stage](part.cfg)
        rows = KINDS[stage][1](part.cfg, shapes_of(stage, part.cfg))
        state = export_params(part.params, rows)
        moments = [state.pop(name) for name in ("mean", "std") if name in state]
        state = {f"{prefix}{key}": value for key, value in state.items()}
        if moments:
            stats = dict(zip(("mean", "std"), moments))
            found.append(File("ViT-L-14_stats", stats, True, "ViT-L-14_stats.th"))
        if stage.startswith("upsampler"):
            upsamplers |= state
        else:
            found.append(File(stage, state, True, f"{stage}.ckpt"))
    if upsamplers:
        found.append(File("improved-sr", upsamplers, True, "improved-sr.ckpt"))
    return found


CHECKS = {
    "prior": prior_json,
    "decoder": decoder_json,
    "upsampler": upsampler_json,
    "upsampler_last": upsampler_json,
}


def _clip_files(model):
    (file,) = openai_files(model)
    return [file._replace(name="ViT-L-14", torch_name="ViT-L-14.pt")]
