"""Counting what manipulations keep: the cases are right, the counts are of pictures."""

import dataclasses
import json

import numpy as np
import pytest

from dalle2_jax.cli.main import main
from dalle2_jax.data.read_shapes import read
from dalle2_jax.data.score_shapes import score
from dalle2_jax.data.write_shapes import evaluation_specs
from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.manipulation_cases import CASES, case_of, outside
from dalle2_jax.evaluate.manipulations import judge_manipulations
from dalle2_jax.manipulate.latent import EXACT

QUICK = dataclasses.replace(EXACT, steps="2")


@pytest.fixture(scope="module")
def cases():
    asked = evaluation_specs("simple", 8, 0, held_out=None, count=1)
    return [case_of(i, 0, asked.specs, asked.images) for i in range(8)]


def test_a_case_changes_what_it_says_and_nothing_else(cases):
    for case in cases:
        (was,), (now,) = case.spec.things, case.recoloured.things
        assert now.colour != was.colour and now == was._replace(colour=now.colour)
        (other,) = case.replaced.things
        assert other.shape != was.shape and other == now._replace(shape=other.shape)
        assert case.recoloured._replace(things=case.spec.things) == case.spec
        old, new = case.caption(case.spec), case.caption(case.recoloured)
        assert now.colour in new
        assert old.split(was.colour)[1] == new.split(now.colour)[1]


def test_what_is_cut_out_holds_the_object_and_leaves_the_ground(cases):
    for case in cases:
        known = outside(case.spec, 64)[0, :, :, 0]
        assert 0.1 < 1 - known.mean() < 0.7
        assert np.abs(case.image[0][known] - case.image[0, 0, 0]).max() < 0.02


def test_every_manipulation_is_counted_on_any_model(model):
    rows = judge_manipulations(model, 2, how=QUICK)
    assert len(rows) > 25
    for row in rows.values():
        assert row.pictures.shape[0] == 2 == row.scores["n"]
        assert row.pictures.dtype == np.uint8
        assert all(0 <= share <= 1 for share in row.scores["accuracy"].values())
        assert np.isfinite(list(row.scores["numbers"].values())).all()
    assert rows["inpainting"].scores["numbers"]["known_error"] == (0.0, 0.0)
    assert rows["variation"].scores["numbers"]["apart"][0] > 1
    assert set(rows["outpainting"].scores["accuracy"]) == {
        "shape",
        "colour",
        "both",
        "background",
    }


def test_the_reader_is_right_on_what_is_given(model):
    large = model._replace(upsampler=None)  # 8 px would not do
    rows = judge_manipulations(large, 12, how=QUICK, names=("given",))
    asked = evaluation_specs("simple", 12, 0, held_out=None, size=8, count=1)
    share = score(asked.specs, read(asked.images, "simple"))["colour"].mean()
    assert rows["the picture itself"].scores["accuracy"]["colour"] == share > 0.8


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"n": 1}, "at least 2"),
        ({"world": "full"}, "cannot be read back"),
        ({"names": ("turn",)}, "no manipulation 'turn'"),
    ],
)
def test_bad_input_is_named(changed, said, model):
    with pytest.raises(BadInput, match=said):
        judge_manipulations(model, **({"n": 2} | changed))


def test_the_study_writes_numbers_with_their_settings(folder, tmp_path, capsys):
    only = "given,upsampling,inpainting"
    words = ["study", "manipulations", "--model", str(folder), "--n", "2"]
    assert main([*words, "--only", only, "--seed", "3", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "manipulations.json").read_text())
    assert list(found["rows"]) == [
        "the picture itself",
        "upsampling",
        "inpainting",
        "two edits in a row",
    ]
    assert (found["n"], found["seed"], found["world"]) == (2, 3, "simple")
    assert "steps='100'" in found["samples"]["inversion"]
    assert (tmp_path / "manipulations.png").stat().st_size > 500
    assert "one standard error" in capsys.readouterr().out
    assert main([*words, "--only", "turn"]) == 2
    assert set(only.split(",")) < set(CASES)
