"""Tables of CLIP: the spellings of OpenAI, OpenCLIP and Hugging Face transformers."""

import numpy as np

from dalle2_jax.clip.contrastive import ClipConfig
from dalle2_jax.clip.image import ImageTowerConfig
from dalle2_jax.clip.text import TextTowerConfig
from dalle2_jax.convert.fields import (
    COUNT,
    FLAG,
    GROUP,
    LAYERS,
    NUMBER,
    POSITIVE,
    SIZE,
    TEXT,
    check_fields,
    either,
    list_of,
    optional,
)
from dalle2_jax.convert.rename import (
    CONV,
    LINEAR,
    SAME,
    Layout,
    Row,
    fused,
    norm,
    shape_of,
    weights,
)
from dalle2_jax.errors import BadInput

# Scalars that OpenAI's archives carry, and index buffers of older transformers files.
IGNORED = (
    "input_resolution",
    "context_length",
    "vocab_size",
    "text_model.embeddings.position_ids",
    "vision_model.embeddings.position_ids",
)
BLOCKS = either(LAYERS, list_of(LAYERS, 4, 4))  # of a ViT, of a ResNet's groups
OPENAI_FIELDS = {
    "embed_dim": SIZE,
    "image_resolution": SIZE,
    "vision_layers": BLOCKS,
    "vision_width": SIZE,
    "vision_patch_size": optional(SIZE),
    "context_length": SIZE,
    "vocab_size": SIZE,
    "transformer_width": SIZE,
    "transformer_heads": SIZE,
    "transformer_layers": LAYERS,
}
OPENCLIP_FIELDS = {
    "model_cfg": {
        "embed_dim": SIZE,
        "vision_cfg": GROUP,
        "text_cfg": GROUP,
        "quick_gelu": optional(FLAG),
    },
    "vision_cfg": {
        "image_size": SIZE,
        "layers": BLOCKS,
        "width": SIZE,
        "head_width": optional(SIZE),
        "patch_size": optional(SIZE),
        "mlp_ratio": optional(POSITIVE),
    },
    "text_cfg": {
        "context_length": SIZE,
        "vocab_size": SIZE,
        "width": SIZE,
        "heads": SIZE,
        "layers": LAYERS,
        "mlp_ratio": optional(POSITIVE),
    },
}
HF_TOWER_FIELDS = {
    "hidden_size": SIZE,
    "intermediate_size": SIZE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": SIZE,
    "hidden_act": TEXT,
    "layer_norm_eps": optional(NUMBER),
    "projection_dim": optional(SIZE),
}
HF_TEXT_FIELDS = {
    **HF_TOWER_FIELDS,
    "vocab_size": SIZE,
    "max_position_embeddings": SIZE,
    "eos_token_id": COUNT,
}
HF_IMAGE_FIELDS = {**HF_TOWER_FIELDS, "image_size": SIZE, "patch_size": SIZE}
RESNET_CONVOLUTIONS = [  # convolution, its BatchNorm, and what ours are called
    ("conv1", "bn1", "in"),
    ("conv2", "bn2", "mid"),
    ("conv3", "bn3", "out"),
    ("downsample.0", "downsample.1", "skip"),
]
# BatchNorm's count of batches: no weight, so it fills nothing and comes back as 0.
COUNTER = Layout(lambda a: [], lambda parts: np.zeros((), np.int64))


def openai_config(config, where="OpenAI's CLIP"):
    """ClipConfig of OpenAI's class from its constructor arguments, ViT or ResNet.

    Raises:
        BadInput: an argument that is no such size; names it.
    """
    check_fields(config, OPENAI_FIELDS, where)
    vision = {
        "image_size": config["image_resolution"],
        "patch_size": config["vision_patch_size"],
        "width": config["vision_width"],
        "layers": config["vision_layers"],
    }
    image = _image_config(vision, "quick_gelu")
    text = TextTowerConfig(
        vocab=config["vocab_size"],
        context=config["context_length"],
        width=config["transformer_width"],
        depth=config["transformer_layers"],
        heads=config["transformer_heads"],
    )
    return ClipConfig(config["embed_dim"], image, text)


def openai_arguments(state):
    """The constructor arguments of OpenAI's class from the shapes of its state dict.

    Raises:
        BadInput: a key that every such state dict has is missing; names it.
    """
    needed = ("visual.conv1.weight", "positional_embedding", "text_projection")
    for key in (*needed, "token_embedding.weight"):
        if key not in state:
            raise BadInput(f"no OpenAI CLIP: the key {key} is missing.")
    vit = "visual.positional_embedding" in state
    place = "visual" if vit else "visual.attnpool"
    places, _ = shape_of(state, f"{place}.positional_embedding", 2)
    side = round((places - 1) ** 0.5) if places else 0
    width, _, patch, _ = shape_of(state, "visual.conv1.weight", 4)
    groups = [_count(state, f"visual.layer{n}.") for n in (1, 2, 3, 4)]
    text_width, clip = shape_of(state, "text_projection", 2)
    return {
        "embed_dim": clip,
        "image_resolution": side * (patch if vit else 32),
        "vision_layers": _count(state, "visual.transformer.resblocks.")
        if vit
        else groups,
        "vision_width": width if vit else 2 * width,
        "vision_patch_size": patch if vit else None,
        "context_length": shape_of(state, "positional_embedding", 2)[0],
        "vocab_size": shape_of(state, "token_embedding.weight", 2)[0],
        "transformer_width": text_width,
        "transformer_heads": text_width // 64,
        "transformer_layers": _count(state, "transformer.resblocks."),
    }


def _count(state, prefix):
    """How many numbers follow the prefix in the keys."""
    rest = (key[len(prefix) :] for key in state if key.startswith(prefix))
    return len({key.partition(".")[0] for key in rest})


def check_openclip(config, where):
    """Refuses an OpenCLIP model_cfg with fields that are no such sizes; names one."""
    check_fields(config, OPENCLIP_FIELDS["model_cfg"], f"{where}: model_cfg")
    for tower in ("vision_cfg", "text_cfg"):
        place = f"{where}: model_cfg.{tower}"
        check_fields(config[tower], OPENCLIP_FIELDS[tower], place)


def openclip_config(config, where="OpenCLIP"):
    """ClipConfig from an OpenCLIP model_cfg; exact GELU unless quick_gelu is set.

    Raises:
        BadInput: a field that is no such size; names it.
    """
    check_openclip(config, where)
    text = config["text_cfg"]
    activation = "quick_gelu" if config.get("quick_gelu") else "gelu"
    image = _image_config(config["vision_cfg"], activation)
    text = TextTowerConfig(
        vocab=text["vocab_size"],
        context=text["context_length"],
        width=text["width"],
        depth=text["layers"],
        heads=text["heads"],
        mlp_ratio=float(text.get("mlp_ratio") or 4.0),
        activation=activation,
    )
    return ClipConfig(config["embed_dim"], image, text)


def _image_config(vision, activation):
    """ImageTowerConfig from OpenCLIP's fields; a list of layers means a ResNet."""
    blocks, width = vision["layers"], vision["width"]
    resnet = not isinstance(blocks, int)
    return ImageTowerConfig(
        size=vision["image_size"],
        patch=32 if resnet else vision["patch_size"],
        width=width,
        depth=sum(blocks) if resnet else blocks,
        heads=width * (32 if resnet else 1) // (vision.get("head_width") or 64),
        mlp_ratio=float(vision.get("mlp_ratio") or 4.0),
        activation=activation,
        blocks=tuple(blocks) if resnet else (),
    )


def hf_image_config(vision, where="CLIPVisionConfig"):
    """ImageTowerConfig from the fields of a CLIPVisionConfig.

    Raises:
        BadInput: a field that is no such size; names it.
    """
    check_fields(vision, HF_IMAGE_FIELDS, where)
    _check_epsilon(vision)
    return ImageTowerConfig(
        size=vision["image_size"],
        patch=vision["patch_size"],
        width=vision["hidden_size"],
        depth=vision["num_hidden_layers"],
        heads=vision["num_attention_heads"],
        mlp_ratio=vision["intermediate_size"] / vision["hidden_size"],
        activation=vision["hidden_act"],
    )


def hf_text_config(text, where="CLIPTextConfig"):
    """TextTowerConfig from the fields of a CLIPTextConfig.

    eos_token_id 2 is a historical mistake there; it stands for the largest id.

    Raises:
        BadInput: a field that is no such size; names it.
    """
    check_fields(text, HF_TEXT_FIELDS, where)
    _check_epsilon(text)
    end = text["eos_token_id"]
    return TextTowerConfig(
        vocab=text["vocab_size"],
        context=text["max_position_embeddings"],
        width=text["hidden_size"],
        depth=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        mlp_ratio=text["intermediate_size"] / text["hidden_size"],
        activation=text["hidden_act"],
        pool="argmax" if end == 2 else "end",
        end_id=-1 if end == 2 else end,
    )


def hf_config(config, where="CLIPConfig"):
    """ClipConfig from the fields of a CLIPConfig; as its two halves."""
    image = hf_image_config(config["vision_config"], f"{where}: vision_config")
    text = hf_text_config(config["text_config"], f"{where}: text_config")
    return ClipConfig(config["projection_dim"], image, text)


def openai_table(cfg, text_prefix=""):
    """Rows for an OpenAI or OpenCLIP model; text_prefix "text." for CustomTextCLIP."""
    image = (_openai_resnet if cfg.image.blocks else _openai_vit)(cfg.image)
    text = [
        Row("token_embedding.weight", ("text/tokens/embedding",), SAME),
        Row("positional_embedding", ("text/positions",), SAME),
        *_openai_stack("transformer", "text/layers", cfg.text.depth),
        *norm("ln_final", "text/norm_out"),
        Row("text_projection", ("text/projection/kernel",), SAME),
    ]
    text = [row._replace(theirs=text_prefix + row.theirs) for row in text]
    return [*image, *text, Row("logit_scale", ("log_scale",), SAME)]


def hf_table(cfg):
    """Rows for a CLIPModel."""
    image = hf_image_table(cfg.image, "image/")
    text = hf_text_table(cfg.text, "text/")
    return [*image, *text, Row("logit_scale", ("log_scale",), SAME)]


def hf_image_table(cfg, ours=""):
    """Rows for a CLIPVisionModelWithProjection; `ours` stands before our paths."""
    theirs = "vision_model"
    return [
        Row(f"{theirs}.embeddings.class_embedding", (f"{ours}class_token",), SAME),
        Row(
            f"{theirs}.embeddings.patch_embedding.weight", (f"{ours}stem/kernel",), CONV
        ),
        Row(
            f"{theirs}.embeddings.position_embedding.weight",
            (f"{ours}positions",),
            SAME,
        ),
        *norm(f"{theirs}.pre_layrnorm", f"{ours}norm_in"),
        *_hf_stack(f"{theirs}.encoder", f"{ours}layers", cfg.depth),
        *norm(f"{theirs}.post_layernorm", f"{ours}norm_out"),
        Row("visual_projection.weight", (f"{ours}projection/kernel",), LINEAR),
    ]


def hf_text_table(cfg, ours=""):
    """Rows for a CLIPTextModelWithProjection; `ours` stands before our paths."""
    theirs = "text_model"
    tokens = f"{theirs}.embeddings.token_embedding.weight"
    return [
        Row(tokens, (f"{ours}tokens/embedding",), SAME),
        Row(
            f"{theirs}.embeddings.position_embedding.weight",
            (f"{ours}positions",),
            SAME,
        ),
        *_hf_stack(f"{theirs}.encoder", f"{ours}layers", cfg.depth),
        *norm(f"{theirs}.final_layer_norm", f"{ours}norm_out"),
        Row("text_projection.weight", (f"{ours}projection/kernel",), LINEAR),
    ]


def _check_epsilon(config):
    epsilon = config.get("layer_norm_eps")
    if epsilon not in (None, 1e-5):
        raise BadInput(f"layer_norm_eps is {epsilon}; only 1e-5 is supported.")


def _openai_vit(cfg):
    return [
        Row("visual.conv1.weight", ("image/stem/kernel",), CONV),
        Row("visual.class_embedding", ("image/class_token",), SAME),
        Row("visual.positional_embedding", ("image/positions",), SAME),
        *norm("visual.ln_pre", "image/norm_in"),
        *_openai_stack("visual.transformer", "image/layers", cfg.depth),
        *norm("visual.ln_post", "image/norm_out"),
        Row("visual.proj", ("image/projection/kernel",), SAME),
    ]


def _openai_resnet(cfg):
    pairs = [(f"conv{n}", f"bn{n}", f"{{}}_stem_{n - 1}") for n in (1, 2, 3)]
    for group, count in enumerate(cfg.blocks):
        for i in range(count):
            theirs, ours = f"layer{group + 1}.{i}", f"group_{group}_{i}"
            names = RESNET_CONVOLUTIONS[: 3 + (i == 0)]
            pairs += [
                (f"{theirs}.{conv}", f"{theirs}.{bn}", f"{ours}/{{}}_{name}")
                for conv, bn, name in names
            ]
    pool = "visual.attnpool"
    rows = [Row(f"{pool}.positional_embedding", ("image/pool/positions",), SAME)]
    for theirs, ours in zip("qkvc", ("q", "k", "v", "out")):
        rows += weights(f"{pool}.{theirs}_proj", f"image/pool/{ours}", LINEAR)
    return rows + [row for pair in pairs for row in _convolution(*pair)]


def _convolution(conv, bn, ours):
    norm_path = f"image/{ours.format('norm')}"
    statistics = {"running_mean": "mean", "running_var": "variance"}
    return [
        Row(f"visual.{conv}.weight", (f"image/{ours.format('conv')}/kernel",), CONV),
        *norm(f"visual.{bn}", norm_path),
        *(
            Row(f"visual.{bn}.{theirs}", (f"{norm_path}/{leaf}",), SAME)
            for theirs, leaf in statistics.items()
        ),
        Row(f"visual.{bn}.num_batches_tracked", (), COUNTER),
    ]


def _openai_stack(theirs, ours, depth):
    block = f"{theirs}.resblocks.{{i}}"
    kernels, biases = (
        tuple(f"{ours}/attention/{part}/{leaf}" for part in "qkv")
        for leaf in ("kernel", "bias")
    )
    return [
        *norm(f"{block}.ln_1", f"{ours}/norm_1", depth),
        Row(f"{block}.attn.in_proj_weight", kernels, fused(3, 0, LINEAR), depth),
        Row(f"{block}.attn.in_proj_bias", biases, fused(3, 0, SAME), depth),
        *weights(f"{block}.attn.out_proj", f"{ours}/attention/out", LINEAR, depth),
        *norm(f"{block}.ln_2", f"{ours}/norm_2", depth),
        *weights(f"{block}.mlp.c_fc", f"{ours}/mlp/up", LINEAR, depth),
        *weights(f"{block}.mlp.c_proj", f"{ours}/mlp/down", LINEAR, depth),
    ]


def _hf_stack(theirs, ours, depth):
    block = f"{theirs}.layers.{{i}}"
    names = [(f"self_attn.{part}_proj", f"attention/{part}") for part in "qkv"]
    names += [("self_attn.out_proj", "attention/out")]
    names += [("mlp.fc1", "mlp/up"), ("mlp.fc2", "mlp/down")]
    rows = [weights(f"{block}.{a}", f"{ours}/{b}", LINEAR, depth) for a, b in names]
    rows += [norm(f"{block}.layer_norm{n}", f"{ours}/norm_{n}", depth) for n in (1, 2)]
    return [row for pair in rows for row in pair]
