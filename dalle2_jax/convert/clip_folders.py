"""CLIP models from their publishers' files and back: Hugging Face, OpenAI, OpenCLIP."""

import dataclasses
from pathlib import Path

import numpy as np

from dalle2_jax.clip.contrastive import ClipConfig
from dalle2_jax.components import check_fits
from dalle2_jax.convert import openai_clip
from dalle2_jax.convert.containers import read_state, weights_in
from dalle2_jax.convert.diffusers_configs import (
    hf_image_json,
    hf_text_json,
    preprocessor_json,
)
from dalle2_jax.convert.fields import (
    GROUP,
    NUMBER,
    POSITIVE,
    SIZE,
    check_fields,
    list_of,
    optional,
)
from dalle2_jax.convert.parts import (
    File,
    Part,
    check_plain,
    read_config,
    read_tokenizer,
    standard_tokenizer,
)
from dalle2_jax.convert.rename import SAME, Row, export_params
from dalle2_jax.errors import BadInput

HF_TOWER = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "projection_dim": 512}
HF_TEXT = {  # transformers writes only what differs from these
    **HF_TOWER,
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
HF_IMAGE = {
    **HF_TOWER,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
}
OPENCLIP = {  # what OpenCLIP's configurations may say; anything else is another network
    "model_cfg": {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text"},
    "vision_cfg": {
        *("image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio")
    },
    "text_cfg": {
        *("context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio")
    },
}
HF_CLIP_FIELDS = {
    "projection_dim": optional(SIZE),
    "text_config": optional(GROUP),
    "vision_config": optional(GROUP),
}
PIXELS = {"mean": list_of(NUMBER, 3, 3), "std": list_of(POSITIVE, 3, 3)}
MAX_SCALE = np.float32(np.log(100))


def hf_parts(folder, override):
    """The "clip" part of a folder written by transformers.CLIPModel."""
    folder, notes = Path(folder), []
    where = folder / "config.json"
    config = read_config(where)
    check_fields(config, HF_CLIP_FIELDS, where)
    config = {
        "projection_dim": config.get("projection_dim") or 512,
        "text_config": {**HF_TEXT, **(config.get("text_config") or {})},
        "vision_config": {**HF_IMAGE, **(config.get("vision_config") or {})},
    }
    cfg = openai_clip.hf_config(config, where)
    cfg = _with_pixels(cfg, folder / "preprocessor_config.json")
    path = weights_in(folder)
    state = read_state(path, notes)
    yield Part(
        "clip",
        cfg,
        state,
        openai_clip.hf_table(cfg),
        str(path),
        ignored=openai_clip.IGNORED,
        notes=tuple(notes),
    )


def hf_towers(text_folder, image_folder, processor, notes):
    """ClipConfig, state and rows of separate text and image towers (diffusers).

    notes: gets what `read_state` has to tell.

    image_folder and processor may be absent: then there is no image tower. Neither
    holds a logit scale; CLIP's own largest, 100, takes its place.
    """
    where = text_folder / "config.json"
    config = {**HF_TEXT, **read_config(where)}
    text = openai_clip.hf_text_config(config, where)
    clip = config["projection_dim"] or HF_TEXT["projection_dim"]
    state, image = read_state(weights_in(text_folder), notes), None
    rows = openai_clip.hf_text_table(text, "text/")
    if image_folder.is_dir():
        where = image_folder / "config.json"
        image = openai_clip.hf_image_config({**HF_IMAGE, **read_config(where)}, where)
        state |= read_state(weights_in(image_folder), notes)
        rows += openai_clip.hf_image_table(image, "image/")
    cfg = ClipConfig(clip, image, text)
    cfg = _with_pixels(cfg, processor) if image else cfg
    rows.append(Row("logit_scale", ("log_scale",), SAME))
    return cfg, {**state, "logit_scale": MAX_SCALE}, rows


def hf_files(model):
    """A folder for transformers.CLIPModel and CLIPTokenizer."""
    cfg = _vit(model, "A Hugging Face CLIP")
    text = hf_text_json(cfg.text, cfg.clip, model.tokenizer)
    image = hf_image_json(cfg.image, cfg.clip)
    config = {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": cfg.clip,
        "logit_scale_init_value": 2.6592,
        "text_config": text,
        "vision_config": image,
    }
    state = export_params(model.clip.params, openai_clip.hf_table(cfg))
    return [
        File("config.json", config),
        File("model", state, True, "pytorch_model.bin"),
        File("preprocessor_config.json", preprocessor_json(cfg.image)),
    ]


def openai_parts(path, override):
    """The "clip" part of OpenAI's TorchScript archive, sizes read from its shapes.

    override: constructor arguments of clip.model.CLIP that the shapes do not show.
    """
    notes = []
    state = read_state(path, notes)
    try:
        arguments = openai_clip.openai_arguments(state) | override
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    cfg = openai_clip.openai_config(arguments, path)
    check_fits(cfg, len(state), path)
    yield Part(
        "clip",
        cfg,
        state,
        openai_clip.openai_table(cfg),
        str(path),
        ignored=openai_clip.IGNORED,
        notes=tuple(notes),
    )


def openai_files(model):
    """OpenAI's names, without the script around them; clip.load takes the .pt form."""
    cfg = model.clip.cfg
    if cfg.image is None:
        raise BadInput("OpenAI's CLIP has two towers; this model has no image tower.")
    quick = {"activation": "quick_gelu", "mlp_ratio": 4.0}
    plain = {"stem": "patch", "head": "class", **quick}
    check_plain(cfg.image, plain, "OpenAI's CLIP")
    check_plain(cfg.text, {"heads": cfg.text.width // 64, **quick}, "OpenAI's CLIP")
    if not cfg.image.blocks:
        check_plain(cfg.image, {"heads": cfg.image.width // 64}, "OpenAI's CLIP")
    _check_pool(cfg.text, "OpenAI's CLIP")
    state = export_params(model.clip.params, openai_clip.openai_table(cfg))
    return [File("clip", state, True, "clip.pt")]


def openclip_parts(folder, override):
    """The "clip" part of an OpenCLIP folder, or of its bare weights and --config."""
    folder, where, config, notes = Path(folder), "--config", override, []
    if folder.is_dir():
        where = folder / "open_clip_config.json"
        config = read_config(where) | override
    elif "model_cfg" not in config:
        raise BadInput(
            f"{folder} does not say its activation and head width; give its "
            "open_clip_config.json with --config."
        )
    check_fields(config, {"model_cfg": GROUP, "preprocess_cfg": optional(GROUP)}, where)
    openai_clip.check_openclip(config["model_cfg"], where)
    cfg = openai_clip.openclip_config(_whole(config["model_cfg"], where), where)
    pixels = config.get("preprocess_cfg") or {}
    place = f"{where}: preprocess_cfg"
    cfg = _pixels(cfg, pixels.get("mean"), pixels.get("std"), place)
    path = weights_in(folder) if folder.is_dir() else folder
    state = read_state(path, notes)
    if state.pop("logit_bias", None) is not None:
        notes.append("logit_bias of a sigmoid loss was left out: embeddings lack it.")
    check_fits(cfg, len(state), where)
    prefix = "text." if "text.ln_final.weight" in state else ""
    table = openai_clip.openai_table(cfg, prefix)
    yield Part(
        "clip",
        cfg,
        state,
        table,
        str(path),
        ignored=(*openai_clip.IGNORED, "attn_mask", "text.attn_mask"),
        notes=tuple(notes),
    )


def openclip_files(model):
    """A folder for open_clip: open_clip_config.json and the weights."""
    cfg = _vit(model, "An OpenCLIP model")
    image, text = cfg.image, cfg.text
    check_plain(text, {"activation": image.activation}, "OpenCLIP")
    _check_pool(text, "OpenCLIP")
    if image.activation not in ("gelu", "quick_gelu"):
        raise BadInput(f"OpenCLIP cannot express the activation {image.activation!r}.")
    vision_cfg = {
        "image_size": image.size,
        "layers": image.depth,
        "width": image.width,
        "head_width": image.width // image.heads,
        "patch_size": image.patch,
        "mlp_ratio": _ratio(image),
    }
    text_cfg = {
        "context_length": text.context,
        "vocab_size": text.vocab,
        "width": text.width,
        "heads": text.heads,
        "layers": text.depth,
        "mlp_ratio": _ratio(text),
    }
    model_cfg = {"embed_dim": cfg.clip, "vision_cfg": vision_cfg, "text_cfg": text_cfg}
    model_cfg["quick_gelu"] = image.activation == "quick_gelu"
    pixels = {"mean": list(image.mean), "std": list(image.std)}
    state = export_params(model.clip.params, openai_clip.openai_table(cfg))
    return [
        File(
            "open_clip_config.json", {"model_cfg": model_cfg, "preprocess_cfg": pixels}
        ),
        File("open_clip_model", state, True, "open_clip_pytorch_model.bin"),
    ]


def _whole(config, where):
    """OpenCLIP's configuration with ratios that give whole widths: it rounds down.

    Raises:
        BadInput: a field that would make another network; names it.
    """
    for name, known in OPENCLIP.items():
        fields = config if name == "model_cfg" else config[name]
        strange = sorted(k for k in set(fields) - known if fields[k])
        if strange:
            raise BadInput(f"{where}: {name}.{strange[0]} is not supported.")
    towers = {name: dict(config[name]) for name in ("vision_cfg", "text_cfg")}
    for tower in towers.values():
        if tower.get("mlp_ratio"):
            width = tower["width"]
            tower["mlp_ratio"] = int(width * tower["mlp_ratio"]) / width
    return {**config, **towers}


def _ratio(tower):
    """A ratio that OpenCLIP, rounding down, makes the tower's MLP from."""
    hidden = round(tower.width * tower.mlp_ratio)
    exact = hidden / tower.width
    return exact if int(tower.width * exact) == hidden else (hidden + 0.5) / tower.width


def clip_tokenizer(source, cfg):
    """The tokenizer beside the weights, or CLIP's own where the sizes say so."""
    folder = Path(source)
    names = ("merges.txt", "tokenizer.json")
    if folder.is_dir() and any((folder / name).is_file() for name in names):
        return read_tokenizer(folder)
    return standard_tokenizer(cfg)


def _vit(model, target):
    """The ClipConfig of an exportable ViT CLIP; BadInput for anything else."""
    cfg = model.clip.cfg
    if cfg.image is None:
        raise BadInput(f"{target} has two towers; this model has no image tower.")
    check_plain(cfg.image, {"stem": "patch", "head": "class", "blocks": ()}, target)
    return cfg


def _check_pool(text, target):
    """Refuses a text tower that does not end at the largest id."""
    if text.pool != "argmax" and text.end_id != text.vocab - 1:
        raise BadInput(
            f"{target} pools at the largest id; this model pools at {text.end_id}."
        )


def _with_pixels(cfg, path):
    config = read_config(path) if path.is_file() else {}
    return _pixels(cfg, config.get("image_mean"), config.get("image_std"), path)


def _pixels(cfg, mean, std, where):
    """The ClipConfig with the publisher's mean and deviation of pixels."""
    if not (mean and std):
        return cfg
    check_fields({"mean": mean, "std": std}, PIXELS, where)
    mean, std = map(float, mean), map(float, std)
    image = dataclasses.replace(cfg.image, mean=tuple(mean), std=tuple(std))
    return dataclasses.replace(cfg, image=image)
