"""Every notebook agrees with its text and runs from top to bottom in a fresh kernel."""

from pathlib import Path

import jupytext
import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "notebooks"
TEXTS = sorted(HOME.glob("*.py"))
SLOW = {"4_export_to_pytorch"}  # it trains; tests/convert/test_trained_here.py has it
RUNS = [
    pytest.param(text, id=text.stem, marks=[pytest.mark.slow] * (text.stem in SLOW))
    for text in TEXTS
]


def executed(path, monkeypatch, model):
    """The notebook of a text, run in its folder, on one device, at small sizes."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setenv("FAST", "1")
    monkeypatch.setenv("MODEL", str(model))
    for name in ("DATA", "N", "INCEPTION"):
        monkeypatch.delenv(name, raising=False)
    notebook = jupytext.read(path)
    if "diffusers" in path.read_text(encoding="utf-8"):  # as tests/convert/conftest.py
        monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests/convert"))
        first = nbformat.v4.new_code_cell("import torchvision_names")
        notebook.cells.insert(0, first)
    place = {"metadata": {"path": str(HOME)}}
    return nbclient.NotebookClient(notebook, timeout=600, resources=place).execute()


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.stem)
def test_text_and_notebook_are_the_same_without_outputs(text):
    one, two = jupytext.read(text), jupytext.read(text.with_suffix(".ipynb"))
    remedy = f"run jupytext --sync notebooks/{text.name}"
    assert [(c.cell_type, c.source) for c in one.cells] == [
        (c.cell_type, c.source) for c in two.cells
    ], remedy
    code = [cell for cell in two.cells if cell.cell_type == "code"]
    assert code and not any(c.outputs or c.execution_count for c in code)
    assert two.metadata["jupytext"]["formats"] == "ipynb,py:percent"


def test_no_notebook_is_without_its_text():
    assert {path.stem for path in HOME.glob("*.ipynb")} == {p.stem for p in TEXTS}


@pytest.mark.parametrize("text", RUNS)
def test_a_notebook_runs_from_top_to_bottom(text, folder, monkeypatch):
    made = executed(text, monkeypatch, folder)
    shown = [o for c in made.cells if c.cell_type == "code" for o in c.outputs]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert not any(output.output_type == "error" for output in shown)


def test_without_a_model_one_sentence_says_which_command_makes_one(
    tmp_path, monkeypatch
):
    with pytest.raises(nbclient.exceptions.CellExecutionError) as found:
        executed(TEXTS[0], monkeypatch, tmp_path / "none")
    assert found.value.ename == "SystemExit"
    assert "`make quickstart` trains a model there" in found.value.evalue
