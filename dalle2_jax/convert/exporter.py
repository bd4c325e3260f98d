"""A model directory -> the files of others, every format the inverse of an import."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from dalle2_jax.components import STAGES, components_of, load_component, write_json
from dalle2_jax.convert import (
    bare_files,
    clip_folders,
    diffusers_folder,
    karlo_original,
)
from dalle2_jax.convert.containers import write
from dalle2_jax.convert.dalle2_pytorch import STAGE as DALLE2_PYTORCH
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.errors import BadInput


class Format(NamedTuple):
    """What we can write.

    files(model) -> [File]. needs: components without which there is nothing to write;
    some: of these at least one. tokenizer: its folder, None for no tokenizer; pad: the
    symbol that it pads with.
    """

    files: Callable
    needs: tuple = ()
    some: tuple = ()
    tokenizer: str | None = None
    pad: str = ""


ADM = ("adm", "adm_upsampler", "classifier")
GLIDE = ("glide", "glide_upsampler")
FORMATS = {
    "diffusers": Format(
        diffusers_folder.files,
        ("clip", "decoder", "upsampler"),
        tokenizer="tokenizer",
        pad="!",  # id 0, with which Karlo pads
    ),
    "karlo": Format(
        karlo_original.files, ("clip",), ("prior", "decoder", "upsampler"), ""
    ),
    "hf_clip": Format(clip_folders.hf_files, ("clip",), tokenizer=""),
    "openclip": Format(clip_folders.openclip_files, ("clip",), tokenizer=""),
    "openai_clip": Format(clip_folders.openai_files, ("clip",), tokenizer=""),
    "adm": Format(bare_files.files, (), ADM),
    "glide": Format(bare_files.files, (), GLIDE),
    "glide_clip": Format(bare_files.noised_files, ("noised_clip",)),
    "dalle2_pytorch": Format(bare_files.dalle2_pytorch_files, (DALLE2_PYTORCH,)),
}
TORCH_FORMS = {  # what torch files of these names hold around the weights
    ".ckpt": lambda state: {"state_dict": state},
    ".th": lambda state: tuple(state.values()),
}


def export_weights(folder, to, name, torch_files=False):
    """Writes a model directory in the format of others.

    Args:
        folder: model directory.
        to: folder to be made; must not exist.
        name: a name of FORMATS.
        torch_files: torch's containers instead of safetensors.

    Returns:
        The names of the files, sorted. Nothing is written unless all can be.

    Raises:
        BadInput: a component is missing, or the format cannot express it; says why.
    """
    folder, to, style = Path(folder), Path(to), FORMATS[name]
    if to.exists():
        raise BadInput(f"{to} exists; give a new folder.")
    model = _load(folder, style, name)
    found = style.files(model)
    new = to.with_name(f".{to.name}.export")
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        for file in found:
            _write(new, file, torch_files)
        if style.tokenizer is not None and model.tokenizer:
            _tokenizer(model, new / style.tokenizer, style.pad)
        new.rename(to)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return sorted(str(p.relative_to(to)) for p in to.rglob("*") if p.is_file())


def _load(folder, style, name):
    """The components that a format needs or can take; the others are not read."""
    there = components_of(folder)
    if missing := [stage for stage in style.needs if stage not in there]:
        raise BadInput(f"{folder} holds no {missing[0]}, which {name} needs.")
    if style.some and not set(style.some) & set(there):
        raise BadInput(f"{folder} holds none of {', '.join(style.some)}.")
    wanted = set(UNCLIP if name in ("diffusers", "karlo") else style.needs + style.some)
    parts = {
        stage: load_component(folder, stage)
        if stage in there and stage in wanted
        else None
        for stage in STAGES
    }
    place = folder / "tokenizer"
    tokenizer = Tokenizer.load(place) if place.is_dir() else None
    return SimpleNamespace(**parts, tokenizer=tokenizer)


UNCLIP = ("clip", "prior", "decoder", "upsampler", "upsampler_last")


def _write(folder, file, torch_files):
    name = file.name
    if file.weights:
        name = file.torch_name if torch_files else f"{name}.safetensors"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.weights:
        form = TORCH_FORMS.get(path.suffix, lambda state: state)
        write(path, form(file.content))
    elif isinstance(file.content, str):
        path.write_text(file.content, encoding="utf-8")
    else:
        write_json(path, file.content)


def _tokenizer(model, folder, pad):
    """The tokenizer, as transformers reads it."""
    model.tokenizer.save(folder)
    marks = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    marks |= {"unk_token": "<|endoftext|>", "pad_token": pad or "<|endoftext|>"}
    context = model.clip.cfg.text.context
    about = {"tokenizer_class": "CLIPTokenizer", **marks, "model_max_length": context}
    write_json(folder / "tokenizer_config.json", about)
