"""Bare state dicts of recorded weights: in, out again bit for bit, and faults."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from dalle2_jax.components import load_component
from dalle2_jax.convert.exporter import export_weights
from dalle2_jax.convert.importer import import_weights, recognise
from dalle2_jax.convert.parity import read_case
from dalle2_jax.errors import BadInput

DATA = Path(__file__).parent.parent / "parity" / "data"
CASES = {  # recorded case -> family, format, component, what the file does not say
    "unet_guided_diffusion_new": ("adm", "adm", "adm", {}),
    "unet_guided_diffusion_legacy": ("adm", "adm", "adm", {"noise": {}}),
    "superres_guided_diffusion": ("adm", "adm", "adm_upsampler", {"low_res": 4}),
    "classifier_guided_diffusion": ("adm", "adm", "classifier", {}),
    "glide_text2im": ("adm", "glide", "glide", {"image_size": 16}),
    "glide_inpaint": ("adm", "glide", "glide", {"image_size": 12, "inpaint": True}),
    "glide_superres": (
        "adm",
        "glide",
        "glide_upsampler",
        {"image_size": 16, "low_res": 4},
    ),
    "glide_clip": ("glide_clip", "glide_clip", "noised_clip", {}),
    "dalle2_pytorch_prior": (
        "dalle2_pytorch",
        "dalle2_pytorch",
        "prior_dalle2_pytorch",
        {},
    ),
}


def write(tmp_path, name):
    """The recorded weights as their publishers' files: (source, files, --config)."""
    case = read_case(DATA / f"{name}.safetensors")
    if name == "glide_clip":
        files = {"image_encoder": "clip_image_enc", "text_encoder": "clip_text_enc"}
    else:
        files = {"": name}
    for part, file in files.items():
        state = {
            k.removeprefix(f"{part}/"): v
            for k, v in case.params.items()
            if k.startswith(f"{part}/") or not part
        }
        save_file(state, tmp_path / f"{file}.safetensors")
    source = tmp_path if len(files) > 1 else tmp_path / f"{name}.safetensors"
    return source, list(files.values()), {**case.config, **CASES[name][3]}


@pytest.mark.parametrize("name", CASES)
def test_import_then_export_is_the_identity(tmp_path, name):
    family, style, stage, _ = CASES[name]
    source, files, config = write(tmp_path, name)
    assert recognise(source) == family
    (part,) = import_weights(source, tmp_path / "model", override=config)
    assert part.stage == stage
    assert load_component(tmp_path / "model", stage).params
    written = export_weights(tmp_path / "model", tmp_path / "back", style)
    names = ["prior"] if family == "dalle2_pytorch" else files
    for file, back in zip(files, names):
        assert f"{back}.safetensors" in written
        there = load_file(tmp_path / f"{file}.safetensors")
        back = load_file(tmp_path / "back" / f"{back}.safetensors")
        assert there.keys() == back.keys()
        for key in there:
            np.testing.assert_array_equal(there[key], back[key], err_msg=key)


def test_published_names_bring_their_sizes(tmp_path):
    save_file(
        {"input_blocks.0.0.weight": np.zeros((2, 2), "f")}, tmp_path / "x.safetensors"
    )
    with pytest.raises(BadInput, match="does not say its sizes .*--config"):
        import_weights(tmp_path / "x.safetensors", tmp_path / "model")
    path = tmp_path / "64x64_diffusion.safetensors"
    (tmp_path / "x.safetensors").rename(path)
    with pytest.raises(BadInput, match="time_embed.0.weight is missing"):
        import_weights(path, tmp_path / "model")
    assert not (tmp_path / "model").exists()


CASE = "unet_guided_diffusion_legacy"


def spoilt(tmp_path, change):
    source, _, config = write(tmp_path, CASE)
    state = load_file(source)
    change(state)
    save_file(state, source)
    return source, config


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda s: s.update(extra=np.zeros(2, "f")), "extra .* has no place"),
        (lambda s: s.pop("out.2.bias"), "the key out.2.bias is missing"),
        (
            lambda s: s.update({"out.2.bias": np.zeros(7, "f")}),
            r"out.2.bias has shape \(7,\), expected \(6,\)",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(tmp_path, change, sentence):
    source, config = spoilt(tmp_path, change)
    with pytest.raises(BadInput, match=sentence):
        import_weights(source, tmp_path / "model", override=config)
    assert [p.name for p in tmp_path.iterdir()] == [source.name]


def test_halves_are_kept_as_float32_or_bfloat16(tmp_path):
    source, _, config = write(tmp_path, CASE)
    state = {k: torch.tensor(v).half() for k, v in load_file(source).items()}
    torch.save(state, tmp_path / "half.pt")
    (part,) = import_weights(tmp_path / "half.pt", tmp_path / "a", override=config)
    assert part.dtypes == ["float16"]
    found = load_file(tmp_path / "a" / "adm" / "model.safetensors")
    assert {str(a.dtype) for a in found.values()} == {"float32"}
    import_weights(tmp_path / "half.pt", tmp_path / "b", None, config, "bfloat16")
    found = load_file(tmp_path / "b" / "adm" / "model.safetensors")
    assert {str(a.dtype) for a in found.values()} == {"bfloat16"}


def test_components_join_a_model_directory_once(tmp_path):
    source, _, config = write(tmp_path, CASE)
    import_weights(source, tmp_path / "model", override=config)
    (tmp_path / "model" / "note").write_text("mine")
    other, _, arguments = write(tmp_path, "classifier_guided_diffusion")
    import_weights(other, tmp_path / "model", override=arguments)
    about = json.loads((tmp_path / "model" / "dalle2.json").read_text())
    assert about["components"] == ["adm", "classifier"]
    with pytest.raises(BadInput, match="already holds a component classifier"):
        import_weights(other, tmp_path / "model", override=arguments)
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("mine")
    with pytest.raises(BadInput, match="is no model directory"):
        import_weights(source, full, override=config)


def test_strangers_are_named(tmp_path):
    save_file({"quantize.embedding": np.zeros(3, "f")}, tmp_path / "vq.safetensors")
    with pytest.raises(BadInput, match="no known family .*quantize.embedding"):
        recognise(tmp_path / "vq.safetensors")
    with pytest.raises(BadInput, match="no folder that can be imported"):
        recognise(tmp_path / "..")
    with pytest.raises(BadInput, match="does not exist"):
        import_weights(tmp_path / "nowhere", tmp_path / "model")
