"""unCLIP §5.2: people compare two systems, pair by pair; preferences with 95 % bars.

Three questions, as in the paper: which picture is more photorealistic, which matches
the caption better, and which of two 4x4 grids for one caption is more diverse. Where
neither is better, each side gets half a vote.
"""

import csv
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dalle2_jax.data.images import read_image
from dalle2_jax.data.text import read_rows
from dalle2_jax.errors import BadInput

QUESTIONS = {
    "photorealism": "Which picture looks more like a photograph?",
    "caption": "Which picture matches the caption better?",
    "diversity": "Which set of pictures is more diverse?",
}
GRID = 16  # pictures of a side where diversity is asked: 4 x 4
VOTES = {"left": 1.0, "neither": 0.5, "right": 0.0}
COLUMNS = ("pair", "answer")
Z95 = 1.959964  # 95 % of a normal distribution lie within so many deviations


class Pair(NamedTuple):
    """One thing to be judged; index: of the caption; swapped: system b is left."""

    name: str  # question-number
    question: str
    index: int
    caption: str
    swapped: bool


def make_pairs(captions, questions=tuple(QUESTIONS), seed=0):
    """Pairs, question by question, one per caption; sides are a function of the seed.

    Half of the pairs of a question (the larger half, for an odd number) are swapped.

    Raises:
        BadInput: there is no such question.
    """
    pairs = []
    for question in questions:
        if question not in QUESTIONS:
            known = ", ".join(QUESTIONS)
            raise BadInput(f"{question!r} is no question; take some of {known}.")
        rng = np.random.default_rng([seed, list(QUESTIONS).index(question)])
        sides = rng.permutation(np.arange(len(captions)) % 2 == 0)
        pairs += [
            Pair(f"{question}-{i:04d}", question, i, caption, bool(swapped))
            for i, (caption, swapped) in enumerate(zip(captions, sides))
        ]
    return pairs


def read_folder(folder):
    """{caption: [uint8 [y, x, 3]]} of a folder that `dalle2 sample` wrote.

    Pictures that do not say what they were drawn for are left out.

    Raises:
        BadInput: there are none, or one cannot be read.
    """
    found = {}
    for path in sorted(Path(folder).glob("*.png")):
        said, pixels = read_image(path.read_bytes(), str(path), _read_made)
        try:
            facts = json.loads(said)
        except ValueError as error:
            raise BadInput(
                f"{path} has a broken text chunk `dalle2` ({error}); draw it again."
            ) from error
        if isinstance(facts, dict) and "caption" in facts:
            found.setdefault(facts["caption"], []).append(pixels)
    if not found:
        raise BadInput(f"{folder} holds no picture of `dalle2 sample` with a caption.")
    return found


def _read_made(image):
    return image.info.get("dalle2", "{}"), np.asarray(image.convert("RGB"))


def write_template(path, pairs):
    """An answer sheet: a line a pair, its answer (left, neither, right) still empty."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(COLUMNS)
        lines.writerows((pair.name, "") for pair in pairs)


def read_answers(path, pairs):
    """{question: votes for system a, [n] of 1, 1/2 or 0} of a filled answer sheet.

    Lines without an answer are left out.

    Raises:
        BadInput: it cannot be read, a line names an unknown pair or answer, or a pair
            has two.
    """
    known = {pair.name: pair for pair in pairs}
    found = {}
    for number, name, answer in _lines(path):
        if name not in known:
            raise BadInput(
                f"{path}, line {number}: {name!r} is no pair of this comparison, or is "
                "there twice; give one answer a pair, and the key that belongs to them."
            )
        if answer not in VOTES:
            words = ", ".join(VOTES)
            raise BadInput(
                f"{path}, line {number}: {answer!r} is no answer; write one of {words}."
            )
        vote = VOTES[answer]
        pair = known.pop(name)
        found.setdefault(pair.question, []).append(1 - vote if pair.swapped else vote)
    return {question: np.array(votes) for question, votes in found.items()}


def _lines(path):
    """(number, pair, answer) of the lines that have an answer."""
    rows = read_rows(path, COLUMNS)
    answers = [row["answer"].strip().lower() for row in rows]
    lines = enumerate(zip(rows, answers), 2)
    return [(i, row["pair"], answer) for i, (row, answer) in lines if answer]


def preference(votes):
    """How often system a is preferred: the mean vote, with its 95 % error.

    Args:
        votes: [n] of 1, 1/2 or 0.

    Returns:
        {"preference": p, "error_95": half the normal interval, as the paper prints it
        (1.96 deviations of the mean), "low", "high": Wilson's interval, which is right
        for few votes, too, "n"}.

    Raises:
        BadInput: there are none.
    """
    n = len(votes)
    if not n:
        raise BadInput("no pair has an answer; fill the sheet in first.")
    p, deviation = float(np.mean(votes)), float(np.std(votes))
    middle = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    spread = Z95 * np.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2)) / (1 + Z95**2 / n)
    interval = {"low": float(middle - spread), "high": float(middle + spread)}
    error = Z95 * deviation / n**0.5
    return {"preference": p, "error_95": error, **interval, "n": n}
