"""Weights of others -> a model directory: recognised, checked, written whole or not."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import ml_dtypes
import numpy as np

from dalle2_jax.components import (
    components_of,
    read_json,
    save_component,
    write_json,
)
from dalle2_jax.config import plain
from dalle2_jax.convert import (
    bare_files,
    clip_folders,
    diffusers_folder,
    karlo_original,
)
from dalle2_jax.convert.containers import dtypes_of, read, state_of
from dalle2_jax.convert.parts import shapes_for, standard_tokenizer
from dalle2_jax.convert.rename import flat_paths, import_params, keys
from dalle2_jax.errors import BadInput

DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}


class Family(NamedTuple):
    """What we can read. parts(source, override) yields Parts; tokenizer(source, cfg)
    gives a Tokenizer or None, and is called where there is a CLIP.
    """

    parts: Callable
    tokenizer: Callable
    about: str


def _standard(source, cfg):
    return standard_tokenizer(cfg)


FAMILIES = {
    "diffusers": Family(
        diffusers_folder.parts,
        diffusers_folder.tokenizer,
        "folder of an UnCLIPPipeline or UnCLIPImageVariationPipeline",
    ),
    "karlo": Family(
        karlo_original.parts,
        clip_folders.clip_tokenizer,
        "Karlo's own .ckpt files, a folder or one",
    ),
    "hf_clip": Family(
        clip_folders.hf_parts, clip_folders.clip_tokenizer, "Hugging Face CLIP folder"
    ),
    "openclip": Family(
        clip_folders.openclip_parts, clip_folders.clip_tokenizer, "OpenCLIP folder"
    ),
    "openai_clip": Family(
        clip_folders.openai_parts, _standard, "OpenAI's CLIP archives"
    ),
    "adm": Family(bare_files.parts, _standard, "guided-diffusion's and GLIDE's files"),
    "glide_clip": Family(
        bare_files.noised_parts, _standard, "GLIDE's noised CLIP, two files"
    ),
    "dalle2_pytorch": Family(
        bare_files.dalle2_pytorch_parts,
        _standard,
        "diffusion priors of DALLE2-pytorch",
    ),
}
FOLDER_MARKS = {  # a file in a folder -> what the folder is
    "model_index.json": "diffusers",
    "open_clip_config.json": "openclip",
    "prior_config.json": "dalle2_pytorch",
    "clip_image_enc.pt": "glide_clip",
    "clip_image_enc.safetensors": "glide_clip",
}
KEY_MARKS = {  # the beginning of a key -> what a file is; the first that is there
    "model.prd_emb": "karlo",
    "model.cf_param": "karlo",
    "model_first_steps.": "karlo",
    "net.causal_transformer.": "dalle2_pytorch",
    "ema_model.net.causal_transformer.": "dalle2_pytorch",
    "blocks.input.": "glide_clip",
    "input_blocks.": "adm",
    "visual.": "openai_clip",
}


class Written(NamedTuple):
    """One imported component. table: (foreign key, our path, shape) per tensor."""

    stage: str
    where: str
    parameters: int
    dtypes: list
    table: list
    notes: tuple


def snapshot_of(source: Path) -> Path:
    """The newest snapshot of a cache folder of the hub; any other path as it is.

    Such a folder is called models--ORG--NAME and holds refs/main, which names one of
    the folders in snapshots/.

    Raises:
        BadInput: it holds none, or more than one and no refs/main that names it.
    """
    snapshots = source / "snapshots"
    if not (source.name.startswith("models--") and snapshots.is_dir()):
        return source
    found = sorted(p for p in snapshots.iterdir() if p.is_dir())
    ref = source / "refs" / "main"
    main = ref.read_bytes().strip().decode("utf-8", "replace") if ref.is_file() else ""
    named = [p for p in found if p.name == main] or found
    if len(named) == 1:
        return named[0]
    raise BadInput(
        f"{source} is a cache folder with {len(found)} snapshots and no refs/main that "
        f"names one of them; give one of the folders in {snapshots}."
    )


def recognise(source):
    """The family of a file or folder, a name of FAMILIES.

    Raises:
        BadInput: nothing there, or of no family.
    """
    source = snapshot_of(Path(source))
    if source.is_dir():
        found = [f for name, f in FOLDER_MARKS.items() if (source / name).is_file()]
        found += ["hf_clip"] if _is_hf_clip(source) else []
        found += [] if found else ["karlo"] * bool(karlo_original.files_of(source))
        if found:
            return found[0]
        raise BadInput(
            f"{source} is no folder that can be imported: it holds none of "
            f"{', '.join(FOLDER_MARKS)}, and no weights of Karlo or a CLIP."
        )
    tree = read(source)
    if isinstance(tree, (tuple, list)) and len(tree) == 2:
        return "karlo"
    state = state_of(tree, source)
    for mark, family in KEY_MARKS.items():
        if any(key.startswith(mark) for key in state):
            archive = family != "openai_clip" or "input_resolution" in state
            return family if archive else "openclip"
    some = sorted(state)[0]
    raise BadInput(
        f"{source} is of no known family (it holds {some}); name it with --as, one of "
        f"{', '.join(FAMILIES)}, inception."
    )


def import_weights(
    source, to, family=None, override=None, dtype="float32", dry=False, nonfinite=False
):
    """Imports a source into a model directory.

    Args:
        source: file or folder.
        to: model directory, new or without the components that the source brings.
        family: a name of FAMILIES; default: recognised.
        override: a dict with what the source does not say, see each family's `parts`.
        dtype: "float32" or "bfloat16", of the weights that are written.
        dry: check everything, write nothing.
        nonfinite: take weights that are infinite or no numbers as they are.

    Returns:
        [Written]. Nothing is written unless every part is right.

    Raises:
        BadInput: names the key, leaf, shape or component that is wrong.
    """
    source, to = Path(source), Path(to)
    if not source.exists():
        raise BadInput(f"{source} does not exist; give a file or folder of weights.")
    if to.exists() and not (to / "dalle2.json").is_file() and any(to.iterdir()):
        raise BadInput(f"{to} exists and is no model directory; give a new folder.")
    name = family or recognise(source)
    family = FAMILIES[name]
    given, source = source, snapshot_of(source)
    new = to.with_name(f".{to.name}.import")
    shutil.rmtree(new, ignore_errors=True)
    written = []
    try:
        for part in family.parts(source, override or {}):
            if (to / part.stage).exists():
                raise BadInput(
                    f"{to} already holds a component {part.stage}; give another folder."
                )
            written.append(_import_part(part, new, dtype, dry, given, nonfinite))
            if part.stage == "clip":
                _tokenizer(family, source, part.cfg, new, dry)
        if not dry:
            _publish(new, to)
    except KeyError as error:
        raise BadInput(f"{source} as {name}: {error} is missing in it.") from error
    except (AssertionError, ZeroDivisionError) as error:
        raise BadInput(f"{source} as {name}: impossible sizes ({error}).") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return written


def _import_part(part, new, dtype, dry, source, nonfinite):
    """Checks and converts one part; writes it into the new folder unless dry."""
    shapes = shapes_for(part.stage, part.cfg, part.state, part.where)
    params = import_params(
        part.state, part.rows, shapes, part.where, part.ignored, nonfinite
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    flat = {path: leaf.shape for path, leaf in flat_paths(shapes).items()}
    table = [
        (key, " + ".join(row.ours), _shape(row, flat))
        for row in part.rows
        for key in keys(row)
    ]
    if not dry:
        config = {
            "stage": part.stage,
            "model": plain(part.cfg),
            "noise": plain(part.noise) if part.noise else None,
            "sampling": part.sampling or {},
            "imported": {"from": source.name, **(part.origin or {})},
        }
        params = jax.tree.map(lambda leaf: leaf.astype(DTYPES[dtype]), params)
        save_component(new, part.stage, config, params)
    dtypes = dtypes_of(part.state)
    return Written(part.stage, part.where, count, dtypes, table, part.notes)


def _shape(row, flat):
    """The shape that one tensor of a row has in our tree."""
    return flat[row.ours[0]][1 if row.layers else 0 :] if row.ours else ()


def _tokenizer(family, source, cfg, new, dry):
    """Copies or makes the tokenizer that goes with an imported CLIP."""
    made = family.tokenizer(source, cfg)
    if made is None:
        raise BadInput(
            f"{source}: a CLIP of {cfg.text.vocab} ids needs its tokenizer; put "
            "vocab.json and merges.txt beside the weights."
        )
    if made.size > cfg.text.vocab:
        raise BadInput(
            f"{source}: the tokenizer has {made.size} ids, CLIP only {cfg.text.vocab}; "
            "they are not of one model."
        )
    if not dry:
        made.save(new / "tokenizer")


def _publish(new, to):
    """Puts a finished folder in its place, or its components into a model directory."""
    if not (to / "dalle2.json").is_file():
        with contextlib.suppress(OSError):
            to.rmdir()
        return os.replace(new, to)
    about = read_json(new / "dalle2.json", "import it again")
    for part in sorted(new.iterdir()):
        if part.is_dir() and not (to / part.name).exists():
            os.replace(part, to / part.name)
    about["components"] = components_of(to)
    return write_json(to / "dalle2.json", about)


def _is_hf_clip(folder):
    path = folder / "config.json"
    return path.is_file() and read_json(path, "").get("model_type") == "clip"
