"""What a foreign configuration may say: the kind of every field that is read.

Other people's JSON is checked here before anything is computed from it, so that a wrong
type or an impossible size is one sentence with the file and the field.
"""

import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dalle2_jax.diffusion.schedule import MOST_STEPS
from dalle2_jax.errors import BadInput

LARGEST = 2**20  # of a width, a side or a vocabulary
MOST_LAYERS = 1000


class Kind(NamedTuple):
    """about: what a value must be, in words; fits(value): whether it is."""

    about: str
    fits: Callable[[Any], bool]
    optional: bool = False


def whole(least: int, most: int) -> Kind:
    """Whole numbers from least to most."""
    return Kind(
        f"a whole number from {least} to {most:,}",
        lambda value: type(value) is int and least <= value <= most,
    )


def optional(kind: Kind) -> Kind:
    """The kind, of a field that may be absent or null."""
    return Kind(
        f"{kind.about}, or null", lambda v: v is None or kind.fits(v), optional=True
    )


def list_of(kind: Kind, least: int = 0, most: int = 64) -> Kind:
    """Lists of least to most entries of one kind."""
    return Kind(
        f"a list of {least} to {most} entries, each {kind.about}",
        lambda value: (
            isinstance(value, (list, tuple))
            and least <= len(value) <= most
            and all(map(kind.fits, value))
        ),
    )


def either(one: Kind, other: Kind) -> Kind:
    """What is of one kind or of the other."""
    return Kind(
        f"{one.about}, or {other.about}", lambda v: one.fits(v) or other.fits(v)
    )


def _is_number(value):
    return type(value) in (int, float) and abs(value) < 1e9 and math.isfinite(value)


SIZE, COUNT = whole(1, LARGEST), whole(0, LARGEST)
LAYERS, STEPS = whole(1, MOST_LAYERS), whole(1, MOST_STEPS)
NUMBER = Kind("a finite number", _is_number)
POSITIVE = Kind("a positive number", lambda v: _is_number(v) and v > 0)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
TEXT = Kind("text", lambda value: isinstance(value, str))
GROUP = Kind("a group of fields", lambda value: isinstance(value, dict))


def check_fields(config: Mapping, kinds: Mapping[str, Kind], where: object) -> None:
    """Checks the fields that are going to be read; others pass unread.

    where: the file, and the group in it.

    Raises:
        BadInput: a field is missing or of another kind; names it.
    """
    for name, kind in kinds.items():
        if name not in config and not kind.optional:
            raise BadInput(f"{where}: {name} is missing; it must be {kind.about}.")
        if name in config and not kind.fits(config[name]):
            said = reprlib.repr(config[name])
            raise BadInput(f"{where}: {name} must be {kind.about}, not {said}.")
