"""`dalle2 demo` before its page: what it needs, and examples of captions."""

import sys

import pytest

from dalle2_jax.cli.main import main
from dalle2_jax.data.examples import read_examples, write_examples


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "pip install 'dalle2_jax[demo]'"),
        (["--port", "0"], "--port 0 must lie between 1 and 65535"),
    ],
)
def test_what_it_needs_is_said_in_one_sentence(more, said, folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "")
    monkeypatch.setattr("signal.signal", lambda *given: None)
    assert main(["demo", "--model", str(folder), *more]) == 2
    heard = capsys.readouterr().err.strip()
    assert said in heard and "\n" not in heard


def test_examples_are_short_different_and_spread_out(tmp_path):
    assert read_examples(tmp_path) == []
    write_examples(tmp_path, iter([]))
    assert read_examples(tmp_path) == []
    captions = [f"a {i // 2}\tring\n" for i in range(24)] + ["long " * 40, ""]
    write_examples(tmp_path, captions)
    assert read_examples(tmp_path) == [f"a {i} ring" for i in range(0, 12, 2)]
