"""Verbs from another working directory, with every form that a local path may have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dalle2_jax.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["model.unet.multiples=(1,)", "model.unet.channels=32", "model.size=8"]
WORDS += ["data.size=16", "batch=8", "steps=2", "save_every=1", "log_every=1"]
TRAIN = ["train", "--config", f"{ROOT}/configs/upsampler_256.py:small"]
TRAIN += [f"--config.{word}" for word in WORDS]


@pytest.fixture(scope="module")
def home(tmp_path_factory, folder):
    """A home with data, a model, a trained run, and a link to the run."""
    from dalle2_jax.data.write_shapes import make_shapes

    home = tmp_path_factory.mktemp("home")
    make_shapes("simple", 16, 0, home / "data", size=16, shard_size=16)
    (home / "model").mkdir()
    (home / "model" / "tokenizer").symlink_to(folder / "tokenizer")
    (home / "link").symlink_to("run")
    (home / "inner").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        words = [*TRAIN, "--data", "data", "--workdir", "run", "--model=model"]
        assert main(words) == 0
    return home


@pytest.fixture
def inside(home, monkeypatch):
    """In a folder of the home, which is $HOME."""
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home / "inner")
    return home


FORMS = ["../run", "~/run", "../link", "../inner/../run/", "{}/run"]


@pytest.mark.parametrize("form", FORMS)
def test_intact_checkpoints_are_intact(inside, form, capsys):
    place = form.format(inside)
    assert main(["inspect", place, "--verify", "--digest"]) == 0
    out = capsys.readouterr().out
    assert out.count("intact") == 2 and "damaged" not in out
    assert main(["inspect", place]) == 0
    assert "checkpoints: 1, 2" in capsys.readouterr().out


@pytest.mark.parametrize("form", FORMS[:3])
def test_a_run_goes_on_from_any_form(inside, form, capsys):
    words = ["--data", "../data/*.tar", f"--workdir={form}", "--model", "~/model"]
    assert main([*TRAIN, *words]) == 0
    assert not list(Path().iterdir())


def test_made_and_looked_at_from_elsewhere(inside, capsys):
    words = ["--count", "8", "--size", "16", "--shard-size", "8"]
    assert main(["data", "make-shapes", "--to=~/made", *words]) == 0
    assert main(["data", "inspect", "~/made"]) == 0
    assert (
        main(["data", "train-tokenizer", "--data=~/made", "--vocab=600", "--to=~/t"])
        == 0
    )
    assert {"made", "t"} <= {path.name for path in inside.iterdir()}
    assert not list(Path().iterdir())


def test_pictures_from_elsewhere(inside, folder, capsys):
    (inside / "m").symlink_to(folder)
    words = ["sample", "a red ring", "--model=~/m", "--out=../out", "--steps=1/1/1"]
    assert main(words) == 0
    assert (inside / "out" / "00000.png").is_file()
    assert main(["inspect", "../m", "--verify"]) == 0


PLACES = [
    ["train", "--config", "c.py", "--workdir", "URL"],
    ["train", "--config", "c.py", "--workdir", "w", "--model", "URL"],
    ["train", "--config", "c.py", "--workdir", "w", "--init", "URL"],
    ["quickstart", "--out", "URL"],
    ["sample", "a", "--model", "URL", "--out", "o"],
    ["sample", "a", "--model", "m", "--out", "URL"],
    ["variations", "URL", "--model", "m", "--out", "o"],
    ["evaluate", "--model", "m", "--out", "URL"],
    ["evaluate", "--model", "m", "--work", "URL"],
    ["study", "prior", "--model", "URL", "--world", "simple"],
    ["data", "make-shapes", "--to", "URL"],
    ["data", "embed", "--data", "d", "--model", "m", "--to", "URL"],
    ["data", "train-tokenizer", "--data", "d", "--vocab", "600", "--to", "URL"],
    ["import", "URL", "--to", "m"],
    ["import", "m", "--to", "URL"],
    ["export", "m", "--format", "karlo", "--to", "URL"],
    ["inspect", "URL"],
    ["demo", "--model", "URL"],
]


@pytest.mark.parametrize("words", PLACES, ids=" ".join)
def test_urls_are_refused_in_one_sentence(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main([word.replace("URL", "gs://bucket/x") for word in words])
    err = capsys.readouterr().err
    assert left.value.code == 2 and err.count("\n") == 1 and "gs://bucket/x" in err
    assert not list(tmp_path.iterdir())


def test_a_run_is_not_opened_at_a_url(tmp_path):
    from dalle2_jax.cli.overrides import load_run
    from dalle2_jax.errors import BadInput
    from dalle2_jax.train.fit import Job, fit

    run = load_run("configs/upsampler_256.py:small")
    local, remote = tmp_path / "a", Path("gs://bucket/x")
    for job in (Job(["d"], remote, local), Job(["d"], local, remote)):
        with pytest.raises(BadInput, match="URL"):
            fit(run, job)
    assert not local.exists()


SEEDED = [
    ["sample", "a", "--model", "m", "--out", "o"],
    ["variations", "p.png", "--model", "m", "--out", "o"],
    ["evaluate", "--model", "m"],
    ["study", "prior", "--model", "m", "--world", "simple"],
    ["study", "manipulations", "--model", "m"],
    ["study", "human", "--model", "m"],
    ["data", "make-shapes", "--to", "m"],
    ["quickstart"],
]


@pytest.mark.parametrize("words", SEEDED, ids=" ".join)
@pytest.mark.parametrize("seed", ["-1", str(2**64), "1.5", "x", ""])
def test_what_is_no_seed_is_refused_by_every_verb(words, seed, capsys):
    with pytest.raises(SystemExit) as left:
        main([*words, f"--seed={seed}"])
    assert left.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def refused(capsys, *words):
    assert main([str(word) for word in words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "Traceback" not in err
    return err


FOREIGN = ["[]", "3", "{", "{}", '{"stage": "clip"}', '{"model_type": "bert"}', "\xff"]


@pytest.mark.parametrize("text", FOREIGN)
@pytest.mark.parametrize("name", ["config.json", "dalle2.json"])
def test_a_foreign_folder_is_one_sentence(tmp_path, capsys, name, text):
    (tmp_path / name).write_text(text, encoding="latin-1")
    assert name in refused(capsys, "inspect", tmp_path)
    assert name in refused(capsys, "inspect", tmp_path, "--verify")


@pytest.mark.parametrize("names", ['["clip"]', '["../clip"]', "3", "[3]", '"clip"'])
def test_components_that_are_not_there(tmp_path, capsys, names):
    (tmp_path / "dalle2.json").write_text(f'{{"format": 1, "components": {names}}}')
    for more in ([], ["--verify"]):
        assert tmp_path.name in refused(capsys, "inspect", tmp_path, *more)
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_text("{}")
    (tmp_path / "clip" / "model.safetensors").write_text("no weights")
    for more in ([], ["--verify"]):
        assert tmp_path.name in refused(capsys, "inspect", tmp_path, *more)


def test_no_folder_to_inspect(tmp_path, capsys):
    (tmp_path / "a.tar").write_text("")
    assert "is a file" in refused(capsys, "inspect", tmp_path / "a.tar")
    assert "does not exist" in refused(capsys, "inspect", tmp_path / "none")


def test_a_run_whose_last_line_is_cut(tmp_path, capsys):
    about = {"stage": "clip", "steps": 9, "batch": 4}
    (tmp_path / "config.json").write_text(json.dumps(about))
    (tmp_path / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir(parents=True)
    for cut in (b'{"step": 2, "lo', b"\xff\0\0", b"[]"):
        (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "loss": 2.5}\n' + cut)
        assert main(["inspect", str(tmp_path)]) == 0
        assert "step 1: loss 2.5" in capsys.readouterr().out
    assert "no checkpoint" in refused(capsys, "inspect", tmp_path, "--verify")


@pytest.mark.parametrize("content", [None, "folder", b"\xff\xfe", b"a: [\n b: }"])
def test_launch_files_that_cannot_be_rendered(tmp_path, content):
    path = tmp_path / "a.yaml"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    words = [sys.executable, "launch/render.py", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.count("\n") == 1 and str(path) in done.stderr
