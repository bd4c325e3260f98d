"""The path a user walks, minute-sized, as commands: trained, interrupted, resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from dalle2_jax.cli.quickstart import Plan, copy_model

WORDS = ["quickstart", "--minutes", "0.5", "--captions", "4", "--out", "q"]
# Background jobs of a shell ignore ctrl-C, and children inherit that.
LISTENING = (
    "import signal, sys; from dalle2_jax.cli.main import main;"
    "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main())"
)


def environment():
    """One device, as on a user's machine."""
    return {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}


def dalle2(folder, *words):
    """Runs a command in a folder; its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "dalle2_jax.cli.main", *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished quickstart that was interrupted once while a stage trained."""
    folder = tmp_path_factory.mktemp("first")
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENING, *WORDS],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    begun = folder / "q/simple-0.5min-seed0/decoder/config.json"
    while process.poll() is None and not begun.is_file():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode in (75, 130), errors
    assert "Traceback" not in errors
    dalle2(folder, *WORDS)
    return folder


def test_the_report_is_complete(folder):
    report = json.loads((folder / "q/report.json").read_text())
    names = {"shape", "colour", "both", "size", "place", "background", "all"}
    assert set(report["accuracy"]) == names == set(report["standard_error"])
    assert all(0 <= value <= 1 for value in report["accuracy"].values())
    routes = {"text_embedding", "caption_only", "true_embedding"}
    assert set(report["ablations"]) == routes
    assert all(report["ablations"][r]["n"] == 4 == report["n"] for r in routes)
    assert report["finding"].count("the paper") == 2 and report["protocol"]["n"] == 4
    assert set(report["prior_cosines"]) >= {"to_image", "to_caption", "to_unrelated"}
    assert report["ablations"]["caption_only"]["frechet_clip"] > 0
    assert set(report["probes"]) == {"shape", "colour", "size", "place"}
    stages = {"data", "clip", "prior", "decoder", "upsampler", "judge"}
    assert set(report["seconds"]) == stages
    for name in ("report.md", "grid.png", "curves.png"):
        assert (folder / "q" / name).stat().st_size > 500


def test_the_latest_model_has_a_short_name_and_can_be_copied(tmp_path):
    place = tmp_path / "model"
    place.symlink_to("simple-1min-seed0/model")  # as earlier versions left it
    for seed in (0, 1, 0):
        plan = Plan("simple", 1, tmp_path, seed, 2, "small")
        own = plan.folder / "model" / "clip"
        own.mkdir(parents=True, exist_ok=True)
        (own / "config.json").write_text(str(seed))
        (tmp_path / ".model.new" / "half").mkdir(parents=True)  # it was interrupted
        copy_model(plan)
        shutil.copytree(place, tmp_path / f"copy{len(list(tmp_path.iterdir()))}")
        assert (place / "clip" / "config.json").read_text() == str(seed)
        assert not any(path.is_symlink() for path in (place, *place.rglob("*")))
    shutil.rmtree(place)
    place.mkdir()
    (place / "mine").write_text("")
    copy_model(plan)
    assert [path.name for path in place.iterdir()] == ["mine"]


def test_finished_stages_are_not_trained_again(folder):
    model = folder / "q/simple-0.5min-seed0/model"
    weights = "decoder/model.safetensors"
    assert (folder / "q/model" / weights).read_bytes() == (model / weights).read_bytes()
    before = {p: p.stat().st_mtime_ns for p in model.rglob("*.safetensors")}
    dalle2(folder, *WORDS)
    assert before == {p: p.stat().st_mtime_ns for p in model.rglob("*.safetensors")}


def test_what_was_trained_can_be_used(folder):
    model = "q/simple-0.5min-seed0/model"
    assert "upsampler" in dalle2(folder, "inspect", model)
    assert "checkpoints: 14" in dalle2(folder, "inspect", "q/simple-0.5min-seed0/clip")
    words = ["sample", "a large red ring", "a cross", "--n", "2", "--model", model]
    short = ["--steps", "2/2/2", "--out"]
    dalle2(folder, *words, *short, "one")
    dalle2(folder, *words, *short, "two")
    from PIL import Image

    names = sorted(p.name for p in (folder / "one").glob("*.png"))
    assert names == ["00000.png", "00001.png", "00002.png", "00003.png", "grid.png"]
    one = Image.open(folder / "one/00002.png")
    assert (
        one.size == (64, 64) and json.loads(one.text["dalle2"])["caption"] == "a cross"
    )
    assert "trainedAlgorithmicMedia" in one.text["XML:com.adobe.xmp"]
    assert one.tobytes() == Image.open(folder / "two/00002.png").tobytes()
    scores = ["evaluate", "--model", model, "--world", "simple", "--n", "2"]
    dalle2(folder, *scores, "--steps", "2/2/2", "--out", "scores.json")
    found = json.loads((folder / "scores.json").read_text())
    shown = found["scores"]["full_stack"]["accuracy"]["all"]
    assert shown["n"] == 2 and shown["samples"]["ema"]["decoder"]
