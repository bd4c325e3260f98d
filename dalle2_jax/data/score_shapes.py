"""Compares what was asked of a generated world with what was read, by attribute."""

import numpy as np

from dalle2_jax.data.shapes import canonical
from dalle2_jax.errors import BadInput

SIMPLE = ("shape", "colour", "both", "size", "place", "background", "all")
PAIRS = (*SIMPLE[:5], "relation", "count", *SIMPLE[5:])


def _bag(spec, *names):
    """The things' attributes regardless of order."""
    return sorted(tuple(getattr(t, name) for name in names) for t in spec.things)


def _agreement(wanted, seen):
    """How many shapes and colours agree, one by one."""
    pairs = zip(wanted, seen, strict=True)
    return sum((a.shape == b.shape) + (a.colour == b.colour) for a, b in pairs)


def _related(wanted, seen):
    """Two objects on the right axis, and no better explained in the other order."""
    if wanted.relation != seen.relation:
        return False
    straight = _agreement(wanted.things, seen.things)
    return straight >= _agreement(wanted.things, seen.things[::-1])


def _one(wanted, seen):
    want, saw = canonical(wanted), canonical(seen)
    count = len(want.things) == len(saw.things)
    right = {
        "count": count,
        "shape": count and _bag(want, "shape") == _bag(saw, "shape"),
        "colour": count and _bag(want, "colour") == _bag(saw, "colour"),
        "both": count and _bag(want, "shape", "colour") == _bag(saw, "shape", "colour"),
        "size": count and _bag(want, "size") == _bag(saw, "size"),
        "place": count and _bag(want, "place") == _bag(saw, "place"),
        "background": want.background == saw.background,
        "relation": count and _related(want, saw),
    }
    return {**right, "all": all(right.values())}


def score(wanted, seen):
    """Which attributes of each picture are as asked: name -> bool [n].

    shape, colour: of all objects, in any order. both: every object has its own shape
    and colour. size, place: of a single object; not asked of two, then True. relation:
    axis and order of two objects; True for a single one. all: everything.

    wanted, seen: lists of n Specs of one world, as from `evaluation_specs` and `read`.
    """
    if len(wanted) != len(seen):
        raise BadInput(f"{len(wanted)} specs are wanted but {len(seen)} were read.")
    names = PAIRS if any(s.world == "pairs" for s in wanted) else SIMPLE
    rows = [_one(a, b) for a, b in zip(wanted, seen)]
    return {name: np.array([row[name] for row in rows], bool) for name in names}
