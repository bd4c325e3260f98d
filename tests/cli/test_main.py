"""The command line: quick help, one sentence for bad input, the right exit code."""

import gc
import signal
import subprocess
import sys
import threading

import pytest

from dalle2_jax.cli.main import VERBS, main, unraisable


def test_help_does_not_wait_for_jax():
    code = (
        "import sys; from dalle2_jax.cli.main import parser; parser().format_help();"
        "heavy = {'jax', 'flax', 'optax', 'grain', 'matplotlib', 'transformers'};"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_an_example(verb, capsys):
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    assert left.value.code == 0
    assert f"example: dalle2 {verb}" in capsys.readouterr().out


def refused(capsys, *words):
    """The one sentence on stderr of a command that exits with 2."""
    assert main([str(word) for word in words]) == 2
    out = capsys.readouterr()
    assert out.err.count("\n") == 1 and "Traceback" not in out.err
    return out.err


def test_bad_usage_is_one_sentence(tmp_path, capsys):
    out = tmp_path / "out"
    assert "--minutes must be above 0" in refused(
        capsys, "quickstart", "--minutes", "0", "--out", out
    )
    assert "no caption given" in refused(
        capsys, "sample", "--model", tmp_path, "--out", out
    )
    assert "is no model directory" in refused(
        capsys, "sample", "a ring", "--model", tmp_path, "--out", out
    )
    assert "neither a run nor a model" in refused(capsys, "inspect", tmp_path)
    assert not out.exists()


CLIP = "configs/clip.py:small"


def train(tmp_path, config, *extra):
    return ["train", "--config", config, "--workdir", tmp_path / "run", *extra]


@pytest.mark.parametrize(
    "config, extra, sentence",
    [
        ("configs/none.py", [], "configs/none.py does not exist"),
        ("configs/clip.py:huge", [], "has no variant 'huge'"),
        (CLIP, ["--config.optim.rat=1"], "did you mean 'rate'"),
        (CLIP, ["--config.batch=much"], "config.batch must be int"),
        (CLIP, ["--config.batch=0"], "config.batch must be positive"),
        (CLIP, ["--config.batch=12"], "multiple of 8"),
        (CLIP, ["--config.stage=clop"], "config.stage is 'clop'"),
        ("configs/prior_diffusion.py:small", [], "tokenizer does not exist"),
    ],
)
def test_bad_configurations(tmp_path, capsys, shards, config, extra, sentence):
    words = train(tmp_path, config, "--data", *shards, *extra)
    assert sentence in refused(capsys, *words)


def test_bad_data(tmp_path, capsys):
    (tmp_path / "text.tar").write_text("this is no tar")
    words = train(tmp_path, CLIP, "--data", tmp_path / "text.tar")
    assert "text.tar" in refused(capsys, *words)
    words = train(tmp_path, CLIP, "--data", tmp_path / "none.tar")
    assert "none.tar" in refused(capsys, *words)


def test_an_unknown_flag_is_bad_usage():
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--verbose"])
    assert left.value.code == 2


def test_doctor_finds_eight_devices(capsys):
    assert main(["doctor"]) == 0
    assert "all-reduce: 8, right" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "q"
    assert main(["quickstart", "--out", str(place), "--minutes", "0.1"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "Not a directory" in err and str(place) in err


class Finalized:
    """Something whose finalizer a ctrl-C happens to meet."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def collected():
    """An interrupt in a callback of the garbage collector."""
    sent = []

    def callback(phase, info):
        if not sent:
            sent.append(phase)
            signal.raise_signal(signal.SIGINT)

    gc.callbacks.append(callback)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(callback)


@pytest.mark.parametrize("swallow", [collected, Finalized])
def test_a_ctrl_c_that_python_swallows_comes_again(swallow, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(sys, "unraisablehook", unraisable)
    try:
        with pytest.raises(KeyboardInterrupt):
            swallow()
            threading.Event().wait(60)
    finally:
        signal.signal(signal.SIGINT, before)


def test_names_from_files_cannot_break_or_steer_the_terminal(tmp_path, capsys):
    odd = tmp_path / "line\nbreak\x1b[2J\u2028"
    assert main(["data", "inspect", str(odd)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.endswith("\n")
    assert "\x1b" not in said and r"line\nbreak\x1b[2J\u2028" in said
