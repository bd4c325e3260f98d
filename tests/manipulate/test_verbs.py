"""The verbs that start from a picture, from the command line to files."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from dalle2_jax.cli.main import main

FAST = ["--steps", "3"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Picture files of many kinds, by name."""
    where = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (40, 30, 4), np.uint8)
    Image.fromarray(colours[..., :3]).save(where / "a.png")
    Image.fromarray(colours[..., :3][::-1].copy()).save(where / "b.jpg")
    Image.fromarray(colours, "RGBA").save(where / "alpha.png")
    Image.fromarray(colours[..., 0]).save(where / "grey.png")
    Image.fromarray(colours[:1, :1, :3]).save(where / "one.png")
    Image.new("1", (20_000, 20_000)).save(where / "bomb.png")
    (where / "words.png").write_text("no picture")
    mask = np.zeros((40, 30, 3), np.uint8)
    mask[:20] = 255
    Image.fromarray(mask).save(where / "mask.png")
    Image.fromarray(mask[:30]).save(where / "small_mask.png")
    return where


VERBS = {
    "variations": ["a.png", "--n", "2"],
    "interpolate": ["a.png", "b.jpg", "--n", "3"],
    "mix": ["a.png", "--caption", "a red ring", "--n", "2"],
    "text-diff": ["a.png", "--new", "a blue square", "--old", "a red ring", "--n", "3"],
    "inpaint": ["a.png", "--mask", "mask.png", "--caption", "a red ring"],
    "image-to-image": ["a.png", "--caption", "a red ring", "--n", "2"],
    "upsample": ["a.png", "b.jpg"],
    "typographic": ["a.png", "--words", "hi", "--labels", "a", "b", "--n", "1"],
}
MADE = {"text-diff": 3, "interpolate": 3, "mix": 2, "upsample": 2, "inpaint": 2}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_writes_its_pictures(verb, folder, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(pictures)
    steps = [] if verb in ("upsample", "typographic") else FAST
    words = [verb, *VERBS[verb], *steps, "--model", str(folder), "--out", str(tmp_path)]
    assert main(words) == 0
    made = sorted(tmp_path.glob("0*.png"))
    expected = MADE.get(verb, 1 + int(VERBS[verb][-1]) if "--n" in VERBS[verb] else 0)
    assert len(made) == expected and (tmp_path / "grid.png").is_file()
    with Image.open(made[-1]) as image:
        kept = "compositeWithTrained" in image.info["XML:com.adobe.xmp"]
        assert image.size == (16, 16) and kept == (verb == "inpaint")
        facts = json.loads(image.info["dalle2"])
    given = {"verb": verb, "seed": 0, "model": folder.name, "sample": len(made) - 1}
    given |= {"steps": "3"} if steps else {}
    given |= {"images": [w for w in VERBS[verb] if w in ("a.png", "b.jpg")]}
    assert facts.items() >= given.items() and str(tmp_path) not in str(facts)
    flags = {w[2:].replace("-", "_") for w in VERBS[verb] if w.startswith("--")}
    assert flags <= set(facts)


@pytest.mark.parametrize("name", ["alpha.png", "grey.png", "one.png"])
def test_unusual_pictures_are_taken(name, folder, pictures, tmp_path):
    words = ["upsample", str(pictures / name), "--model", str(folder)]
    assert main([*words, "--out", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["variations", "bomb.png"], "bomb.png is too large to be decoded safely"),
        (["variations", "words.png"], "words.png is no picture in a known format"),
        (["variations", "none.png"], "none.png cannot be read"),
        (["variations", "a.png", "--eta", "2"], "--eta 2"),
        (["inpaint", "a.png", "--mask", "small_mask.png"], "make them equally large"),
        (["inpaint", "a.png"], "give --mask or --around"),
        (["interpolate", "a.png", "b.jpg", "--n", "1"], "at least 2"),
        (["image-to-image", "a.png", "--strength", "0"], "strength is 0"),
        (["mix", "a.png", "--weights", "1", "2"], "as many weights, not 2"),
        (["variations", "a.png", "--steps", "1001"], "1001 sampling steps"),
    ],
)
def test_bad_input_is_one_sentence(
    words, said, folder, pictures, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(pictures)
    assert main([*words, "--model", str(folder), "--out", str(tmp_path / "out")]) == 2
    heard = capsys.readouterr().err.strip()
    assert said in heard and "\n" not in heard


@pytest.mark.parametrize(
    ("verb", "stage"),
    [
        ("upsample", "upsampler"),
        ("variations", "decoder"),
        ("inpaint", "prior"),
        ("typographic", "clip"),
    ],
)
def test_a_model_without_the_stage_is_named(
    verb, stage, folder, pictures, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(pictures)
    part = tmp_path / "model"
    shutil.copytree(folder, part)
    shutil.rmtree(part / stage)
    words = [verb, *VERBS[verb], "--model", str(part), "--out", str(tmp_path)]
    assert main(words) == 2
    assert f"holds no {stage};" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [v for v in VERBS if "--n" in VERBS[v]])
def test_none_of_them_is_no_number_of_pictures(verb, capsys):
    words = [verb, *VERBS[verb], "--n", "0", "--model", "m", "--out", "o"]
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    assert "'0' is no whole number above 0" in capsys.readouterr().err


def test_pictures_are_enlarged_as_they_are(folder, tmp_path, capsys):
    for name, size in (("wide", (9, 5)), ("tall", (3, 8))):
        Image.new("RGB", size, "teal").save(tmp_path / f"{name}.png")
    given = [str(tmp_path / f"{name}.png") for name in ("wide", "tall")]
    words = ["upsample", *given, "--model", str(folder), "--out", str(tmp_path / "o")]
    assert main([*words, "--size", "own"]) == 0
    sizes = [Image.open(tmp_path / "o" / f"0000{i}.png").size for i in (0, 1)]
    assert sizes == [(18, 10), (6, 16)]
    Image.new("RGB", (1025, 8)).save(given[0])
    words.append("--overwrite")
    assert main([*words, "--size", "own"]) == 2 and main([*words, "--size", "x"]) == 2
    said = capsys.readouterr().err
    assert "is 1025 x 8; at most 1024 pixels a side" in said
    assert "take 4 to 1024 pixels, or own" in said
