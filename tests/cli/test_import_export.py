"""`dalle2 import` and `dalle2 export`: what they print, refuse and leave alone."""

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from dalle2_jax.cli.main import main
from dalle2_jax.clip.contrastive import ClipConfig
from dalle2_jax.clip.image import ImageTowerConfig
from dalle2_jax.clip.text import TextTowerConfig
from dalle2_jax.components import initial_params, save_component
from dalle2_jax.config import plain
from dalle2_jax.convert.parity import read_case

DATA = Path(__file__).parent.parent / "parity" / "data"
CASE = "unet_guided_diffusion_new"


@pytest.fixture
def source(tmp_path):
    """A guided-diffusion file of an unpublished size, and its arguments beside it."""
    case = read_case(DATA / f"{CASE}.safetensors")
    save_file(case.params, tmp_path / "ema.safetensors")
    (tmp_path / "sizes.json").write_text(json.dumps(case.config))
    return tmp_path / "ema.safetensors"


def words(source, *more):
    folder = source.parent
    flags = ["--to", folder / "model", "--config", folder / "sizes.json", *more]
    return ["import", *map(str, [source, *flags])]


def refused(capsys, arguments):
    assert main(arguments) == 2
    out = capsys.readouterr()
    assert out.err.count("\n") == 1 and "Traceback" not in out.err
    return out.err


def test_a_dry_run_prints_the_table_and_writes_nothing(source, capsys):
    assert main(words(source, "--dry-run")) == 0
    out = capsys.readouterr().out
    assert "input_blocks.0.0.weight -> adm: unet/stem/kernel [3, 3, 3, 64]" in out
    assert "nothing written" in out
    assert not (source.parent / "model").exists()


def test_there_and_back(source, capsys):
    assert main(words(source)) == 0
    assert "float32" in capsys.readouterr().out
    back = source.parent / "back"
    model = str(source.parent / "model")
    assert main(["export", model, "--format", "adm", "--to", str(back)]) == 0
    assert "ema.safetensors" in capsys.readouterr().out
    there, here = load_file(source), load_file(back / "ema.safetensors")
    assert all((there[key] == here[key]).all() for key in there | here)
    again = refused(capsys, ["export", model, "--format", "adm", "--to", str(back)])
    assert "exists; give a new folder" in again
    wrong = ["export", model, "--format", "diffusers", "--to", str(back) + "2"]
    assert "holds no clip, which diffusers needs" in refused(capsys, wrong)


def test_bad_usage_is_one_sentence(source, capsys):
    assert "--as must be one of diffusers" in refused(
        capsys, words(source, "--as", "x")
    )
    assert "--dtype must be" in refused(capsys, words(source, "--dtype", "int8"))
    wrong = refused(capsys, words(source, "--as", "openai_clip"))
    assert "no OpenAI CLIP" in wrong
    model = ["export", str(source.parent), "--to", str(source.parent / "out")]
    assert "--format must be one of" in refused(capsys, [*model, "--format", "onnx"])
    assert not (source.parent / "out").exists()


REFUSED = [
    (style, change)
    for change in ({"stem": "conv"}, {"head": "tokens"}, {"activation": "silu"})
    for style in ("hf_clip", "openclip", "openai_clip")
    if (style, "activation") != ("hf_clip", next(iter(change)))
]


@pytest.mark.parametrize("style, change", REFUSED)
def test_what_a_format_cannot_express_is_refused(tmp_path, capsys, style, change):
    image = {"size": 16, "patch": 8, "width": 64, "depth": 1, "heads": 1, **change}
    text = {"vocab": 600, "context": 12, "width": 64, "depth": 1, "heads": 1}
    text |= {k: v for k, v in change.items() if k == "activation"}
    cfg = ClipConfig(16, ImageTowerConfig(**image), TextTowerConfig(**text))
    params = initial_params("clip", cfg, 0)
    save_component(tmp_path / "model", "clip", {"model": plain(cfg)}, params)
    words = ["export", str(tmp_path / "model"), "--to", str(tmp_path / "out")]
    said = refused(capsys, [*words, "--format", style])
    assert f"{next(iter(change.values()))!r}" in said
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
