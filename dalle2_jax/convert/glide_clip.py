"""Table of GLIDE's noised CLIP: an image encoder and a text encoder, a file each."""

import numpy as np

from dalle2_jax.clip.image import ImageTowerConfig
from dalle2_jax.clip.noised import NoisedClipConfig
from dalle2_jax.clip.text import TextTowerConfig
from dalle2_jax.convert.fields import (
    GROUP,
    LAYERS,
    NUMBER,
    SIZE,
    STEPS,
    check_fields,
)
from dalle2_jax.convert.rename import CONV, LINEAR, SAME, Layout, Row

_XF = {"n_embd": 512, "n_head_state": 64}
GLIDE_CLIP = {  # constructor arguments of clip_image_enc.pt and clip_text_enc.pt
    "image_encoder": {
        **_XF,
        "image_size": 64,
        "patch_size": 4,
        "n_head": 12,
        "n_xf_blocks": 12,
        "n_timestep": 1000,
    },
    "text_encoder": {
        **_XF,
        "n_bpe_vocab": 65536,
        "max_text_len": 77,
        "n_head": 8,
        "n_xf_blocks": 12,
    },
    "logit_scale": 100.0,
}

_TOWER_FIELDS = dict.fromkeys(("n_embd", "n_head_state", "n_head"), SIZE)
_TOWER_FIELDS["n_xf_blocks"] = LAYERS
GROUPS = {"image_encoder": GROUP, "text_encoder": GROUP, "logit_scale": NUMBER}
FIELDS = {
    "image_encoder": {
        **_TOWER_FIELDS,
        "image_size": SIZE,
        "patch_size": SIZE,
        "n_timestep": STEPS,
    },
    "text_encoder": {**_TOWER_FIELDS, "n_bpe_vocab": SIZE, "max_text_len": SIZE},
}

# Their keys have no bias. Ours start at 0 and are dropped on the way back: the same
# number on all logits of a query leaves the softmax as it is.
KEYS = Layout(lambda a: [a.T, np.zeros(len(a), a.dtype)], lambda parts: parts[0].T)


def glide_clip_config(config):
    """NoisedClipConfig from the constructor arguments of the two encoders.

    Raises:
        BadInput: an argument that is no such size; names it.
    """
    check_fields(config, GROUPS, "GLIDE's noised CLIP")
    for encoder, fields in FIELDS.items():
        check_fields(config[encoder], fields, encoder)
    image, text = config["image_encoder"], config["text_encoder"]
    return NoisedClipConfig(
        clip=image["n_embd"],
        image=ImageTowerConfig(
            size=image["image_size"],
            patch=image["patch_size"],
            width=image["n_head"] * image["n_head_state"],
            depth=image["n_xf_blocks"],
            heads=image["n_head"],
            activation="gelu",
        ),
        text=TextTowerConfig(
            vocab=text["n_bpe_vocab"],
            context=text["max_text_len"],
            width=text["n_head"] * text["n_head_state"],
            depth=text["n_xf_blocks"],
            heads=text["n_head"],
            activation="gelu",
        ),
        times=image["n_timestep"],
        scale=float(config["logit_scale"]),
    )


def glide_clip_table(cfg, image="image_encoder/", text="text_encoder/"):
    """Rows for both encoders; `image` and `text` stand before their keys."""
    start = f"{image}blocks.input"
    return [
        Row(f"{start}.w_t", ("times/embedding",), SAME),
        Row(f"{start}.patch_proj", ("image/stem/kernel",), CONV),
        Row(f"{start}.w_pos", ("image/positions",), SAME),
        *_norm(f"{start}.ln", "image/norm_in"),
        *_tower(image, "image", cfg.image.depth),
        Row(f"{text}blocks.input.w_voc", ("text/tokens/embedding",), SAME),
        Row(f"{text}blocks.input.w_pos", ("text/positions",), SAME),
        *_tower(text, "text", cfg.text.depth),
    ]


def _tower(theirs, ours, depth):
    block, layers = f"{theirs}blocks.block_{{i}}", f"{ours}/layers"
    attention, mlp = f"{block}.f_attn", f"{block}.f_mlp"
    keys = (f"{layers}/attention/k/kernel", f"{layers}/attention/k/bias")
    output = f"{theirs}blocks.output"
    return [
        *_norm(f"{attention}.ln", f"{layers}/norm_1", depth),
        *_dense(f"{attention}.f_q", f"{layers}/attention/q", depth),
        Row(f"{attention}.f_k.w", keys, KEYS, depth),
        *_dense(f"{attention}.f_v", f"{layers}/attention/v", depth),
        *_dense(f"{attention}.f_c", f"{layers}/attention/out", depth),
        *_norm(f"{mlp}.ln", f"{layers}/norm_2", depth),
        *_dense(f"{mlp}.f_1", f"{layers}/mlp/up", depth),
        *_dense(f"{mlp}.f_2", f"{layers}/mlp/down", depth),
        *_norm(f"{output}.ln", f"{ours}/norm_out"),
        Row(f"{output}.f.w", (f"{ours}/projection/kernel",), LINEAR),
    ]


def _dense(theirs, ours, layers):
    return [
        Row(f"{theirs}.w", (f"{ours}/kernel",), LINEAR, layers),
        Row(f"{theirs}.b", (f"{ours}/bias",), SAME, layers),
    ]


def _norm(theirs, ours, layers=0):
    return [
        Row(f"{theirs}.g", (f"{ours}/scale",), SAME, layers),
        Row(f"{theirs}.b", (f"{ours}/bias",), SAME, layers),
    ]
