"""Which samples of a shard a run uses: what each must have, and filters on metadata.

Decided from the index alone, before any order, so that the order stays a function of
the seed. Names of fields are those of img2dataset, LAION, COYO and DataComp.
"""

import operator
import re
from typing import NamedTuple

import numpy as np

from dalle2_jax.data.sample_members import DOTTED, NO_PICTURE, PICTURES
from dalle2_jax.errors import BadInput

NEED = ("picture", "caption")
RULE = re.compile(r"\s*([\w.-]+?)\s*(>=|<=|==|!=|>|<)\s*([-+.\deE]+)\s*")
COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
# The first of these that a sample has; any other name stands for itself.
ALIASES = {
    "similarity": (
        "similarity",
        "clip_l14_similarity_score",
        "clip_similarity_vitl14",
        "clip_b32_similarity_score",
        "clip_similarity_vitb32",
    ),
    "aesthetic": ("aesthetic", "aesthetic_score", "aesthetic_score_laion_v2"),
    "pwatermark": ("pwatermark", "watermark_score"),
    "punsafe": ("punsafe", "nsfw_score_opennsfw2", "nsfw_score_gantman"),
}


class Rule(NamedTuple):
    """One filter: the number in a field of the JSON, compared with another."""

    field: str
    sign: str
    number: float

    def __str__(self):
        return f"{self.field}{self.sign}{self.number:g}"


class Selected(NamedTuple):
    """index: of the samples that are used, the others in its problems.

    dropped: filter -> samples that it keeps out; fields: the names of numbers there.
    """

    index: object
    dropped: dict
    fields: frozenset


def rules_of(keep):
    """The filters that 'width>=256', 'pwatermark<0.8', ... spell.

    Raises:
        BadInput: one that is not FIELD, a comparison, NUMBER.
    """
    return tuple(map(_rule, keep))


def _rule(text):
    found = RULE.fullmatch(text)
    try:
        return Rule(found[1].lower(), found[2], float(found[3]))
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"data.keep has {text!r}, which is no filter; write a field of the JSON, "
            f"one of {' '.join(COMPARE)} and a number, as in 'width>=256'."
        ) from error


def names_of(rule):
    """The fields that a rule may mean, in order of preference."""
    return ALIASES.get(rule.field, (rule.field,))


def value_of(index, rule):
    """float64 [n]: what a rule compares; NaN where a sample has no such field."""
    value = np.full(len(index.keys), np.nan)
    for name in names_of(rule):
        value = np.where(np.isnan(value), index.field(name), value)
    return value


def select(index, need=NEED, rules=()):
    """The part of a shard that is used.

    Args:
        index: ShardIndex.
        need: "picture", "caption", or extensions of other members ("npy").
        rules: filters of `rules_of`; a sample that lacks the field is dropped.

    Returns:
        Selected.
    """
    good = np.ones(len(index.keys), bool)
    problems = dict(index.problems)
    for thing in need:
        lacks = good & ~_has(index, thing)
        if lacks.any():
            problems |= _reasons(index, thing, lacks)
        good &= ~lacks
    dropped = {}
    for rule in rules:
        value = value_of(index, rule)
        absent = good & np.isnan(value)
        fails = good & ~absent & ~COMPARE[rule.sign](value, rule.number)
        counts = {f"no {rule.field}": absent.sum(), f"not {rule}": fails.sum()}
        dropped |= {name: int(n) for name, n in counts.items() if n}
        good &= ~absent & ~fails
    chosen = index.take(np.flatnonzero(good))._replace(problems=problems)
    return Selected(chosen, dropped, frozenset(index.names.tolist()))


def _reasons(index, thing, lacks):
    """{reason: keys} of the samples that lack something.

    A name with two dots, photo_v1.0.jpg, is one reason why a sample has no picture.
    """
    if thing != "picture":
        return {f"no {thing}": index.keys[lacks].tolist()}
    dotted = np.zeros(len(index.keys), bool)
    for kind in index.kinds.tolist():
        _, dot, ending = kind.rpartition(".")
        if dot and ending in PICTURES:
            dotted |= index.having(kind)
    parts = {DOTTED: lacks & dotted, NO_PICTURE: lacks & ~dotted}
    return {why: index.keys[of].tolist() for why, of in parts.items() if of.any()}


def _has(index, thing):
    if thing == "picture":
        return index.pictures[:, 1] > 0
    return index.captioned if thing == "caption" else index.having(thing)


def check_fields(rules, fields):
    """Refuses a filter on a field that no sample has.

    Args:
        rules: filters of `rules_of`.
        fields: names of the numbers in the JSON of all samples.

    Raises:
        BadInput: names the filter and the fields that there are.
    """
    for rule in rules:
        if not set(names_of(rule)) & set(fields):
            there = ", ".join(sorted(fields)) or "no number at all"
            raise BadInput(
                f"data.keep has '{rule}', but no sample has {rule.field} in its JSON, "
                f"which has {there}; name one of those or drop the filter."
            )
