"""`dalle2 study`, from the command line to tables, JSON, pictures and answers."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from dalle2_jax.cli.main import main

SMALL = ["--world", "simple", "--n", "5", "--steps", "2/2/2"]


def study(folder, name, out, *more):
    """Runs a study; its JSON."""
    words = ["study", name, "--model", str(folder), *SMALL, "--out", str(out), *more]
    assert main(words) == 0
    return json.loads((out / f"{name}.json").read_text())


def every_number(value):
    """All dicts that hold a `value`, at any depth."""
    if isinstance(value, dict) and "value" in value:
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from every_number(part)


def test_a_world_is_judged_with_how_every_number_was_measured(folder, tmp_path, capsys):
    words = ["evaluate", "--model", str(folder), *SMALL]
    assert main([*words, "--out", str(tmp_path / "a.json")]) == 0
    said = capsys.readouterr().out
    for told in ("drawn by", "against 5 real pictures", "steps 2, guidance", "EMA"):
        assert told in said
    numbers = list(every_number(json.loads((tmp_path / "a.json").read_text())))
    assert len(numbers) > 40
    for number in numbers:
        assert number["samples"]["model_sha256"] and number["reference"]["sha256"]
    assert main([*words, "--clip", str(folder)]) == 2
    assert "for other features use" in capsys.readouterr().err


def test_prior_and_clip(folder, tmp_path, capsys):
    found = study(folder, "prior", tmp_path)
    said = capsys.readouterr().out
    assert "the paper" in said and "steps 2, guidance" in said and "drawn by" in said
    assert set(found["routes"]) == {
        "full_stack",
        "text_embedding",
        "caption_only",
        "true_embedding",
    }
    numbers = list(every_number(found))
    assert len(numbers) > 40
    for number in numbers:
        assert number["n"] == 5 and number["version"]
        assert number["samples"]["sampling"]["decoder"]["steps"] == "2"
        assert number["reference"]["sha256"]
    assert found["cosines"]["full_stack"]["to_image"]["standard_error"] > 0
    with Image.open(tmp_path / "prior.png") as sheet:
        assert sheet.width > 5 * 128
    found = study(folder, "clip", tmp_path)
    assert found["distractors"] == 4
    assert 0 <= found["recall"]["image_to_text"]["1"]["value"] <= 1
    assert "samples" in found["recall"]["r_precision_drawn"]


def test_cosines_need_embeddings_alone(folder, tmp_path, shards, capsys):
    emb = tmp_path / "emb"
    words = ["data", "embed", "--model", str(folder), "--data", str(shards[0])]
    assert main([*words, "--to", str(emb)]) == 0
    words = ["study", "prior", "--model", str(folder), "--data", str(emb), "--n", "20"]
    assert main([*words, "--steps", "2", "--out", str(tmp_path)]) == 0
    assert "prior to the picture's z_i" in capsys.readouterr().out
    found = json.loads((tmp_path / "prior.json").read_text())
    assert found["cosines"]["full_stack"]["to_caption"]["n"] == 20
    assert main([*words[:-1], "200", "--steps", "2"]) == 2
    assert "lower --n from 200" in capsys.readouterr().err


def test_guidance_with_error_bars(folder, tmp_path):
    scales = ["--scales", "1,3", "--prior-scales", "2", "--seeds", "2"]
    found = study(folder, "guidance", tmp_path, *scales)
    assert [(r["prior"], r["decoder"]) for r in found["rows"]] == [(2, 1), (2, 3)]
    last = found["rows"][-1]["scores"]["frechet"]
    assert last["deviation"] > 0 and last["samples"]["seed"] == [0, 1]
    assert last["samples"]["sampling"]["prior"]["guidance"] == 2
    with Image.open(tmp_path / "guidance.png") as plot:
        assert plot.width > 600


def test_aesthetics_by_ratings_then_by_the_probe_that_was_kept(folder, tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "rated.npy", rng.normal(size=(30, 17)))
    some = ["--scales", "1", "--routes", "caption_only"]
    rated = ["--ratings", str(tmp_path / "rated.npy")]
    first = study(folder, "aesthetic", tmp_path / "a", *some, *rated)
    probe = ["--probe", str(tmp_path / "a/probe.npz")]
    second = study(folder, "aesthetic", tmp_path / "b", *some, *probe)
    values = [x["rows"][0]["scores"]["aesthetic"]["value"] for x in (first, second)]
    assert values[0] == pytest.approx(values[1])
    assert first["probe"]["n"] == 30 and "deviation" not in first["rows"][0]["scores"]
    assert (tmp_path / "b/aesthetic.png").is_file()


def test_people_answer_a_sheet(folder, tmp_path, capsys):
    words = ["study", "human", "--model", str(folder), *SMALL, "--out", str(tmp_path)]
    assert main([*words, "--questions", "photorealism,caption"]) == 0
    page = (tmp_path / "sheet.html").read_text()
    assert page.count("<img") == 20 and "http" not in page
    key = json.loads((tmp_path / "key.json").read_text())
    with (tmp_path / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, pair in zip(rows, key["pairs"], strict=True):
        row["answer"] = "right" if pair["swapped"] else "left"
    answers = tmp_path / "filled.csv"
    with answers.open("w", newline="") as file:
        lines = csv.DictWriter(file, rows[0])
        lines.writeheader()
        lines.writerows(rows)
    given = ["--key", str(tmp_path / "key.json"), "--out", str(tmp_path)]
    assert main(["study", "human", "--answers", str(answers), *given]) == 0
    found = json.loads((tmp_path / "human.json").read_text())["preference"]
    assert found["photorealism"]["preference"] == 1 and found["caption"]["n"] == 5
    assert "full stack over caption only" in capsys.readouterr().out
    answers.write_text("pair,answer\nbeauty-1,left\n")
    assert main(["study", "human", "--answers", str(answers), *given]) == 2
    assert "'beauty-1' is no pair" in capsys.readouterr().err


def test_two_folders_of_samples_are_compared(folder, tmp_path, capsys):
    for name, seed in (("a", "0"), ("b", "1")):
        words = ["sample", "a red ring", "--n", "2", "--seed", seed, "--steps", "2/2/2"]
        out = str(tmp_path / name)
        assert main([*words, "--model", str(folder), "--out", out]) == 0
    both = ["study", "human", "--pictures", str(tmp_path / "a"), str(tmp_path / "b")]
    out = ["--out", str(tmp_path / "sheet")]
    assert main([*both, *out, "--questions", "caption"]) == 0
    key = json.loads((tmp_path / "sheet/key.json").read_text())
    assert key["systems"] == ["a", "b"] and len(key["pairs"]) == 1
    assert main([*both, *out]) == 2
    assert "share no caption with 16 pictures" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["guidance", "--scales", "1,x"], "--scales 1,x is no list of numbers"),
        (["guidance", "--prior-scales", "nan"], "--prior-scales nan is no list"),
        (["guidance", "--seeds", "0"], "--seeds must be at least 1"),
        (["diversity", "--routes", "full"], "--routes full is none of this model's"),
        (["prior", "--n", "1"], "--n must be at least 2"),
        (["prior", "--inception", "none.pth"], "none.pth"),
        (["aesthetic", "--ratings", "none.csv"], "none.csv cannot be read"),
        (["human"], "a sheet needs --out"),
        (["human", "--questions", "beauty", "--out", "o"], "'beauty' is no question"),
    ],
)
def test_bad_input_is_one_sentence(words, said, folder, capsys):
    more = SMALL if "--n" not in words else SMALL[:2]
    assert main(["study", *words, "--model", str(folder), *more]) == 2
    heard = capsys.readouterr().err.strip()
    assert said in heard and "\n" not in heard


def test_unknown_studies_are_named(capsys):
    with pytest.raises(SystemExit) as left:
        main(["study", "beauty"])
    assert left.value.code == 2
    assert "invalid choice: 'beauty'" in capsys.readouterr().err
