"""Dictionaries <-> frozen dataclasses, strictly: a misspelt field is an error."""

import dataclasses
import difflib
import reprlib
import types
import typing
from collections.abc import Mapping

from dalle2_jax.errors import BadInput

SEEDS = 2**64  # how many there are: a seed is a whole number from 0 on


def build(cls, values, where="config"):
    """A frozen dataclass `cls` from a nested mapping.

    Lists become tuples, an int is taken for a float; a field with a default may be
    absent.

    Raises:
        BadInput: an unknown or missing field, or a value of the wrong type; names it.
    """
    if dataclasses.is_dataclass(values) and isinstance(values, cls):
        return values
    if not isinstance(values, Mapping):
        raise BadInput(
            f"{where} must be a group of fields, not {reprlib.repr(values)}."
        )
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            raise BadInput(
                f"{where}.{name} is no field of {cls.__name__}{_near(name, fields)}"
            )
    missing = [
        name for name, f in fields.items() if name not in values and _required(f)
    ]
    if missing:
        raise BadInput(f"{where}.{missing[0]} is missing; {cls.__name__} needs it.")
    hints = typing.get_type_hints(cls)
    made = {
        name: _coerce(hints[name], values[name], f"{where}.{name}") for name in values
    }
    try:
        return cls(**made)
    except BadInput:
        raise
    except (AssertionError, ArithmeticError, ValueError) as error:  # of __post_init__
        raise BadInput(f"{where}: {error}.") from error


def plain(instance):
    """The JSON-able nested dict of a dataclass; tuples become lists."""
    if dataclasses.is_dataclass(instance):
        names = [f.name for f in dataclasses.fields(instance)]
        return {name: plain(getattr(instance, name)) for name in names}
    if isinstance(instance, Mapping):
        return {key: plain(value) for key, value in instance.items()}
    if isinstance(instance, (tuple, list)):
        return [plain(value) for value in instance]
    return instance


def _required(field):
    default, factory = field.default, field.default_factory
    return default is dataclasses.MISSING and factory is dataclasses.MISSING


def _near(name, fields):
    close = difflib.get_close_matches(name, fields, n=1)
    return (
        f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(fields)}."
    )


def _coerce(kind, value, where):
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _coerce(next(k for k in inner if k is not type(None)), value, where)
    if kind is typing.Any:
        return value
    if dataclasses.is_dataclass(kind):
        return build(kind, value, where)
    if origin is tuple:
        return _tuple(inner, value, where)
    if kind is float and type(value) is int and value.bit_length() < 1024:
        return float(value)
    if isinstance(value, bool) and kind is not bool or not isinstance(value, kind):
        raise BadInput(f"{where} must be {kind.__name__}, not {reprlib.repr(value)}.")
    return value


def _tuple(inner, value, where):
    if not isinstance(value, (tuple, list)):
        raise BadInput(f"{where} must be a list, not {reprlib.repr(value)}.")
    kinds = [inner[0]] * len(value) if inner[1:] == (Ellipsis,) else inner
    if len(kinds) != len(value):
        raise BadInput(f"{where} must have {len(kinds)} entries, not {len(value)}.")
    return tuple(
        _coerce(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value))
    )
