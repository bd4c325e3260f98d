"""The folders of diffusers' UnCLIP pipelines, text-to-image and image-variation.

Import reads them; export writes every component for its own class, and beside them a
loader, since `from_pretrained` on the whole folder no longer works in diffusers.
"""

import dataclasses
from pathlib import Path

from dalle2_jax.components import shapes_of
from dalle2_jax.convert import karlo, openai_clip
from dalle2_jax.convert.clip_folders import hf_towers
from dalle2_jax.convert.containers import read_state, weights_in
from dalle2_jax.convert.diffusers_configs import (
    decoder_json,
    hf_image_json,
    hf_text_json,
    preprocessor_json,
    prior_json,
    scheduler_json,
    upsampler_json,
)
from dalle2_jax.convert.fields import (
    FLAG,
    POSITIVE,
    SIZE,
    STEPS,
    check_fields,
    optional,
)
from dalle2_jax.convert.fields import TEXT as TEXT_FIELD
from dalle2_jax.convert.parts import (
    File,
    Part,
    check_fixed,
    check_plain,
    read_config,
    read_tokenizer,
    shapes_for,
)
from dalle2_jax.convert.rename import export_params
from dalle2_jax.diffusion.schedule import Noise
from dalle2_jax.errors import BadInput

TEXT, VARIATION = "UnCLIPPipeline", "UnCLIPImageVariationPipeline"
UPSAMPLERS = {"super_res_first": "upsampler", "super_res_last": "upsampler_last"}
SHARED = ("text_encoder", "tokenizer", "decoder", "text_proj", *UPSAMPLERS)
SHARED += ("decoder_scheduler", "super_res_scheduler")
FOLDERS = {  # what a pipeline cannot do without
    TEXT: (*SHARED, "prior", "prior_scheduler"),
    VARIATION: (*SHARED, "image_encoder"),
}
PRIOR_WAY = {"steps": "25", "guidance": 4.0, "candidates": 1, "empty": True}
DECODER_WAY = {"steps": "25", "guidance": 8.0, "empty": True}
UPSAMPLER_WAY = {"steps": "7"}
SAME_UNET = {  # other values would be another network
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "act_fn": "silu",
    "norm_eps": 1e-5,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "mid_block_scale_factor": 1,
    "only_cross_attention": False,
    "add_attention": False,
    "cross_attention_norm": None,
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "num_class_embeds": None,
    "time_embedding_dim": None,
    "addition_embed_type": None,
    "encoder_hid_dim": None,
}
BLOCKS = (  # of one class or the other, on the way down
    "ResnetDownsampleBlock2D",
    "SimpleCrossAttnDownBlock2D",
)
SCHEDULER_FIELDS = {
    "num_train_timesteps": optional(STEPS),
    "variance_type": optional(TEXT_FIELD),
    "clip_sample": optional(FLAG),
    "clip_sample_range": optional(POSITIVE),
    "prediction_type": optional(TEXT_FIELD),
}
PREDICTS = {"sample": "x0", "epsilon": "eps"}


def parts(folder, override):
    """The parts of a pipeline's folder; each is read when its turn comes."""
    folder = Path(folder)
    index = read_config(folder / "model_index.json")
    check_fields(index, {"_class_name": TEXT_FIELD}, folder / "model_index.json")
    kind = index["_class_name"]
    if kind not in FOLDERS:
        raise BadInput(
            f"{folder}/model_index.json is of {kind}; only {TEXT} and {VARIATION} are "
            "unCLIP."
        )
    for name in FOLDERS[kind]:
        if not (folder / name).is_dir():
            raise BadInput(f"{folder} is a {kind} without {name}/; download it again.")
    yield _clip(folder)
    if (folder / "prior").is_dir():
        yield _prior(folder)
    yield _decoder(folder)
    for name, stage in UPSAMPLERS.items():
        yield _upsampler(folder, name, stage)


def tokenizer(folder, cfg):
    """The tokenizer of a pipeline's folder."""
    return read_tokenizer(Path(folder) / "tokenizer")


def _clip(folder):
    processor = folder / "feature_extractor" / "preprocessor_config.json"
    places = folder / "text_encoder", folder / "image_encoder", processor
    notes = ["the pipeline holds no logit scale; 100 is assumed."]
    cfg, state, rows = hf_towers(*places, notes)
    cfg = dataclasses.replace(cfg, unit=False)
    ignored = openai_clip.IGNORED
    notes += [] if cfg.image else ["the pipeline holds no image tower of CLIP."]
    where = f"{folder}/text_encoder"
    return Part("clip", cfg, state, rows, where, ignored=ignored, notes=tuple(notes))


def _prior(folder):
    where, notes = folder / "prior", []
    path = where / "config.json"
    cfg = karlo.prior_config(read_config(path), path)
    state, rows = read_state(weights_in(where), notes), karlo.prior_table(cfg)
    noise, way = _process(folder / "prior_scheduler", PRIOR_WAY)
    ignored = ("causal_attention_mask",)
    notes = tuple(notes)
    return Part("prior", cfg, state, rows, str(where), noise, way, ignored, notes)


def _decoder(folder):
    names, configs, state, notes = ("decoder", "text_proj"), [], {}, []
    for name in names:
        configs.append(read_config(folder / name / "config.json"))
        found = read_state(weights_in(folder / name), notes)
        state |= {f"{name}/{key}": value for key, value in found.items()}
    where = folder / "decoder"
    check_fixed(configs[0], {"class_embed_type": "identity"}, where)
    check_fields(configs[1], karlo.TEXT_PROJ_FIELDS, folder / "text_proj/config.json")
    cfg = karlo.decoder_config(_known(configs[0], where), configs[1])
    rows = karlo.decoder_table(cfg, shapes_for("decoder", cfg, state, where))
    noise, way = _process(folder / "decoder_scheduler", DECODER_WAY)
    notes = tuple(notes)
    return Part("decoder", cfg, state, rows, str(where), noise, way, (), notes)


def _upsampler(folder, name, stage):
    where = folder / name
    config = _known(read_config(where / "config.json"), where)
    path = folder / "decoder" / "config.json"
    decoder = read_config(path)
    check_fields(decoder, {"sample_size": SIZE}, path)
    small = decoder["sample_size"]
    if config["sample_size"] % small:
        raise BadInput(f"{where}: sample_size is no multiple of the decoder's {small}.")
    cfg = karlo.upsampler_config(config, config["sample_size"] // small)
    notes = []
    state = read_state(weights_in(where), notes)
    rows = karlo.upsampler_table(cfg, shapes_for("upsampler", cfg, state, where))
    noise, way = _process(folder / "super_res_scheduler", UPSAMPLER_WAY)
    return Part(stage, cfg, state, rows, str(where), noise, way, (), tuple(notes))


def _known(config, where):
    """The configuration of a U-Net of Karlo's kind; refuses any other."""
    check_fixed(config, SAME_UNET, where)
    check_fields(config, karlo.UNET_FIELDS, where / "config.json")
    strange = [kind for kind in config["down_block_types"] if kind not in BLOCKS]
    if strange:
        raise BadInput(f"{where}: blocks of type {strange[0]} are not supported.")
    return config


def _process(folder, way):
    """(Noise, sampling) of a scheduler's folder."""
    path = folder / "scheduler_config.json"
    config = read_config(path)
    check_fixed(config, {"beta_schedule": "squaredcos_cap_v2"}, path)
    check_fields(config, SCHEDULER_FIELDS, path)
    predicts = config.get("prediction_type") or "epsilon"
    if predicts not in PREDICTS:
        raise BadInput(f"{path}: prediction_type {predicts!r} is not supported.")
    noise = Noise(
        schedule="cosine",
        steps=config.get("num_train_timesteps") or 1000,
        predicts=PREDICTS[predicts],
        learned_variance=config.get("variance_type") == "learned_range",
    )
    clips = config.get("clip_sample", True)
    clip = config.get("clip_sample_range") or 1.0 if clips else 0.0
    return noise, {**way, "clip": float(clip)}


def files(model):
    """The folder of an UnCLIPPipeline, or of an UnCLIPImageVariationPipeline where the
    model holds no prior, and load_pipeline.py.

    Raises:
        BadInput: a component is missing, or diffusers has no class for it.
    """
    check_plain(model.clip.cfg, {"unit": False}, "An UnCLIP pipeline of diffusers")
    found = [*_clip_files(model), *_decoder_files(model)]
    for name, stage in UPSAMPLERS.items():
        part = getattr(model, stage) or model.upsampler
        found += _network(name, upsampler_json(part.cfg), _upsampler_state(part))
    found += _scheduler("super_res", model.upsampler)
    if model.prior is not None:
        state = export_params(model.prior.params, karlo.prior_table(model.prior.cfg))
        found += _network("prior", prior_json(model.prior.cfg), state)
        found += _scheduler("prior", model.prior)
    kind = VARIATION if model.prior is None else TEXT
    if kind == VARIATION and model.clip.cfg.image is None:
        raise BadInput("a pipeline needs a prior or CLIP's image tower; this has none.")
    index = _index(kind, model.clip.cfg.image is not None)
    loader = LOADER.format(kind=kind, module=MODULES[kind])
    return [*found, File("model_index.json", index), File("load_pipeline.py", loader)]


def _clip_files(model):
    cfg, params = model.clip.cfg, model.clip.params
    text = hf_text_json(cfg.text, cfg.clip, model.tokenizer)
    state = export_params(params, openai_clip.hf_text_table(cfg.text, "text/"))
    found = _network("text_encoder", text, state, "model", "pytorch_model.bin")
    if cfg.image is None:
        return found
    image = hf_image_json(cfg.image, cfg.clip)
    state = export_params(params, openai_clip.hf_image_table(cfg.image, "image/"))
    found += _network("image_encoder", image, state, "model", "pytorch_model.bin")
    processor = preprocessor_json(cfg.image)
    return [*found, File("feature_extractor/preprocessor_config.json", processor)]


def _decoder_files(model):
    cfg = model.decoder.cfg
    configs = dict(zip(("decoder", "text_proj"), decoder_json(cfg)))
    rows = karlo.decoder_table(cfg, shapes_of("decoder", cfg))
    state, found = export_params(model.decoder.params, rows), []
    for name, config in configs.items():
        part = {k: v for k, v in state.items() if k.startswith(f"{name}/")}
        part = {key.removeprefix(f"{name}/"): value for key, value in part.items()}
        found += _network(name, config, part)
    return [*found, *_scheduler("decoder", model.decoder)]


def _upsampler_state(part):
    rows = karlo.upsampler_table(part.cfg, shapes_of("upsampler", part.cfg))
    return export_params(part.params, rows)


def _network(folder, config, state, name="diffusion_pytorch_model", torch_name=""):
    torch_name = torch_name or f"{name}.bin"
    weights = File(f"{folder}/{name}", state, True, f"{folder}/{torch_name}")
    return [File(f"{folder}/config.json", config), weights]


def _scheduler(name, part):
    config = scheduler_json(part.noise, part.config.get("sampling") or {})
    return [File(f"{name}_scheduler/scheduler_config.json", config)]


def _index(kind, image):
    """model_index.json: which library and class reads each folder."""
    scheduler, unet = ["diffusers", "UnCLIPScheduler"], ["diffusers", "UNet2DModel"]
    index = {
        "_class_name": kind,
        "decoder": ["diffusers", "UNet2DConditionModel"],
        "text_proj": ["unclip", "UnCLIPTextProjModel"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "super_res_first": unet,
        "super_res_last": unet,
        "decoder_scheduler": scheduler,
        "super_res_scheduler": scheduler,
    }
    if kind == TEXT:
        index["prior"] = ["diffusers", "PriorTransformer"]
        index["prior_scheduler"] = scheduler
    if kind == VARIATION:
        index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
        index["image_encoder"] = ["transformers", "CLIPVisionModelWithProjection"]
    return index


MODULES = {TEXT: "pipeline_unclip", VARIATION: "pipeline_unclip_image_variation"}
LOADER = '''\
"""Loads this folder component by component; diffusers 0.38 and later cannot at once."""

import json
import pathlib

import diffusers, transformers
from diffusers.pipelines.deprecated.unclip import {module}, text_proj


def load(folder=pathlib.Path(__file__).resolve().parent):
    index = json.loads((folder / "model_index.json").read_text())
    places = {{"diffusers": diffusers, "transformers": transformers}}
    places["unclip"] = text_proj
    parts = {{
        name: getattr(places[value[0]], value[1]).from_pretrained(folder / name)
        for name, value in index.items() if isinstance(value, list)
    }}
    return {module}.{kind}(**parts)
'''
