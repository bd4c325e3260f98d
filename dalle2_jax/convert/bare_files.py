"""Bare state dicts of guided-diffusion, GLIDE and DALLE2-pytorch, and back.

Such a file does not say its sizes: the released ones are known by name, others need the
constructor arguments of the original class.
"""

from pathlib import Path

from dalle2_jax.components import shapes_of
from dalle2_jax.config import build, plain
from dalle2_jax.convert import adm, dalle2_pytorch, glide, glide_clip
from dalle2_jax.convert.containers import read, read_state, state_of
from dalle2_jax.convert.parts import File, Part, check_plain, read_config, shapes_for
from dalle2_jax.convert.rename import export_params
from dalle2_jax.diffusion.schedule import Noise
from dalle2_jax.errors import BadInput

TABLES = {  # stage -> configuration from constructor arguments, table
    "adm": (adm.decoder_config, adm.decoder_table),
    "adm_upsampler": (adm.decoder_config, adm.decoder_table),
    "classifier": (adm.classifier_config, adm.classifier_table),
    "glide": (glide.glide_config, glide.glide_table),
    "glide_upsampler": (glide.glide_config, glide.glide_table),
}
PUBLISHED = {**adm.GUIDED_FILES, **glide.GLIDE_FILES}
WAYS = {  # sampling settings of the publishers' examples
    "adm": {"steps": "250", "clip": 1.0},
    "adm_upsampler": {"steps": "250", "clip": 1.0},
    "glide": {"steps": "100", "guidance": 3.0, "clip": 1.0},
    "glide_upsampler": {"steps": "fast27", "clip": 1.0},
}
ENCODERS = {"image_encoder": "clip_image_enc", "text_encoder": "clip_text_enc"}


def parts(path, override):
    """The one part of a guided-diffusion or GLIDE file.

    override: constructor arguments that the published ones of that file name are
    changed by; "noise": fields of diffusion.schedule.Noise.
    """
    path = Path(path)
    name = f"{path.stem}.pt"
    if name not in PUBLISHED and not override:
        raise BadInput(
            f"{path} does not say its sizes and is not named like a published file "
            f"({', '.join(sorted(PUBLISHED)[:3])}, ...); rename it, or give the "
            "constructor arguments as JSON with --config."
        )
    notes = []
    state = read_state(path, notes)
    known = PUBLISHED.get(name) if not override else None
    arguments = dict(known.arguments if known else override)
    noise = known.noise if known else arguments.pop("noise", {"learned_variance": True})
    noise = noise and build(Noise, noise, "--config: noise")
    stage = known.stage if known else _stage(state, arguments)
    noise = None if stage == "classifier" else noise
    config, table = TABLES[stage]
    try:
        cfg = config(arguments)
    except KeyError as error:
        raise BadInput(f"--config lacks the argument {error} of {path}.") from error
    except BadInput as error:
        raise BadInput(f"--config of {path}: {error}") from error
    except (AssertionError, ArithmeticError) as error:
        raise BadInput(f"--config makes no network of {path}: {error}.") from error
    order = arguments.get("use_new_attention_order", False)
    shapes = shapes_for(stage, cfg, state, path)
    extra = (order,) * (not stage.startswith("glide"))
    rows = table(cfg, shapes, *extra)
    origin = {"new_order": order, "name": path.stem}
    yield Part(
        stage,
        cfg,
        state,
        rows,
        str(path),
        noise,
        WAYS.get(stage),
        notes=tuple(notes),
        origin=origin,
    )


def _stage(state, arguments):
    """What the weights of an unpublished file are."""
    if "out.2.positional_embedding" in state:
        return "classifier"
    family = "glide" if "token_embedding.weight" in state else "adm"
    return f"{family}_upsampler" if arguments.get("low_res") else family


def files(model):
    """The networks of guided-diffusion and GLIDE, each under its published name."""
    found = []
    for stage, (_, table) in TABLES.items():
        part = getattr(model, stage)
        if part is None:
            continue
        origin = part.config.get("imported", {})
        order = origin.get("new_order", False)
        extra = (order,) * (not stage.startswith("glide"))
        rows = table(part.cfg, shapes_of(stage, part.cfg), *extra)
        name = origin.get("name", stage)
        state = export_params(part.params, rows)
        found.append(File(name, state, True, f"{name}.pt"))
    return found


def noised_parts(source, override):
    """GLIDE's noised CLIP: a folder with its two files, or one of them."""
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    state, notes = {}, []
    for encoder, name in ENCODERS.items():
        paths = [folder / f"{name}{kind}" for kind in (".safetensors", ".pt")]
        path = next((p for p in paths if p.is_file()), paths[-1])
        state |= {f"{encoder}/{k}": v for k, v in read_state(path, notes).items()}
    arguments = glide_clip.GLIDE_CLIP | override
    cfg = glide_clip.glide_clip_config(arguments)
    rows = glide_clip.glide_clip_table(cfg)
    where = str(folder / ENCODERS["image_encoder"])
    yield Part("noised_clip", cfg, state, rows, where, Noise(), notes=tuple(notes))


def noised_files(model):
    """GLIDE's noised CLIP: one file per encoder."""
    part = model.noised_clip
    state = export_params(part.params, glide_clip.glide_clip_table(part.cfg))
    split = {encoder: {} for encoder in ENCODERS}
    for key, value in state.items():
        encoder, _, name = key.partition("/")
        split[encoder][name] = value
    return [
        File(name, split[encoder], True, f"{name}.pt")
        for encoder, name in ENCODERS.items()
    ]


def dalle2_pytorch_parts(source, override):
    """A diffusion prior of DALLE2-pytorch: a file, or LAION's folder of file and JSON.

    override: the prior's JSON where it is not beside the file.
    """
    path, config = Path(source), override
    if path.is_dir():
        config = read_config(path / "prior_config.json") | override
        paths = [path / name for name in PRIOR_NAMES]
        path = next((p for p in paths if p.is_file()), paths[0])
    notes = []
    found = dalle2_pytorch.read_prior(read(path), config or None, str(path), notes)
    yield Part(
        dalle2_pytorch.STAGE,
        found.cfg,
        state_of(found.state, path),
        found.rows,
        str(path),
        found.noise,
        found.sampling,
        found.constants,
        (*notes, f"written by {found.generation}."),
    )


PRIOR_NAMES = ("latest.pth", "best.pth", "prior.pth", "prior.safetensors")


def dalle2_pytorch_files(model):
    """A DALLE2-pytorch prior and its configuration."""
    part = getattr(model, dalle2_pytorch.STAGE)
    check_plain(part.noise, {"time_power": 1.0}, "DALLE2-pytorch")
    way = plain(part.config.get("sampling") or {})
    digits = "".join(c for c in way.get("steps", "") if c.isdigit())
    steps = int(digits) if way.get("sampler") == "ddim" and digits else None
    state, config = dalle2_pytorch.export_prior(
        part.cfg, part.noise, part.params, steps
    )
    weights = File("prior", state, True, "prior.pth")
    return [weights, File("prior_config.json", config)]
