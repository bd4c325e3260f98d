"""Comparisons by people: sides, answers there and back, error bars by formula."""

import csv

import numpy as np
import pytest

from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.human_pairs import (
    make_pairs,
    preference,
    read_answers,
    write_template,
)

CAPTIONS = [f"caption {i}" for i in range(9)]


def filled(path, pairs, answer):
    """A sheet whose pairs have answer(pair)."""
    write_template(path, pairs)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, pair in zip(rows, pairs, strict=True):
        assert row["pair"] == pair.name and row["answer"] == ""
        row["answer"] = answer(pair)
    with path.open("w", newline="") as file:
        lines = csv.DictWriter(file, rows[0])
        lines.writeheader()
        lines.writerows(rows)
    return path


def test_sides_are_balanced_and_a_function_of_the_seed():
    pairs = make_pairs(CAPTIONS, seed=3)
    assert len(pairs) == 27 and len({pair.name for pair in pairs}) == 27
    assert pairs == make_pairs(CAPTIONS, seed=3) != make_pairs(CAPTIONS, seed=4)
    for question in ("photorealism", "caption", "diversity"):
        assert sum(p.swapped for p in pairs if p.question == question) == 5


def test_answers_go_there_and_back(tmp_path):
    pairs = make_pairs(CAPTIONS, seed=1)

    def always_a(pair):
        return "right" if pair.swapped else " Left "

    votes = read_answers(filled(tmp_path / "a.csv", pairs, always_a), pairs)
    assert {q: v.tolist() for q, v in votes.items()} == dict.fromkeys(votes, [1.0] * 9)

    def first_question(pair):
        return "neither" if pair.question == "photorealism" else ""

    votes = read_answers(filled(tmp_path / "b.csv", pairs, first_question), pairs)
    assert list(votes) == ["photorealism"] and set(votes["photorealism"]) == {0.5}


def test_error_bars_are_those_that_the_paper_prints():
    for p, error in ((0.471, 3.1), (0.705, 2.8), (0.626, 3.0)):  # n = 1000
        votes = np.repeat([1.0, 0.0], [round(1000 * p), round(1000 * (1 - p))])
        found = preference(votes)
        assert found["preference"] == pytest.approx(p)
        assert round(100 * found["error_95"], 1) == error
        assert found["low"] == pytest.approx(p - error / 100, abs=2e-3)


def test_few_votes_are_never_certain():
    found = preference(np.ones(4))
    assert found["error_95"] == 0 and found["high"] == pytest.approx(1)
    assert found["low"] == pytest.approx(4 / (4 + 1.959964**2))
    assert preference(np.full(4, 0.5))["preference"] == 0.5
    with pytest.raises(BadInput, match="no pair has an answer"):
        preference([])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pair,answer\nphotorealism-0000,\nother-1,left\n", "line 3: 'other-1'"),
        ("pair,answer\ncaption-0000,better\n", "'better' is no answer"),
        ("pair,answer\ncaption-0000,left\ncaption-0000,left\n", "there twice"),
        ("name,answer\ncaption-0000,left\n", "no column `pair`"),
    ],
)
def test_wrong_answers_are_named(text, said, tmp_path):
    path = tmp_path / "answers.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=said):
        read_answers(path, make_pairs(CAPTIONS))
    with pytest.raises(BadInput, match="'beauty' is no question"):
        make_pairs(CAPTIONS, ["beauty"])
