"""Configuration files and the flags that change them: --config.optim.rate=1e-4."""

import ast
import difflib
import os
import runpy
from pathlib import Path

from dalle2_jax.errors import BadInput


def load_run(text, overrides=()):
    """The Run of `path.py` or `path.py:variant`, with overrides applied.

    Args:
        text: path of a file that defines get_config(variant), the variant optional.
        overrides: "--config.a.b=value" strings; values are Python literals or words.
            Any field of the resolved run can be named, also one left at its default.

    Raises:
        BadInput: no such file, no get_config, an unknown variant or field, a bad type.
    """
    from dalle2_jax.train.run import as_dict, run_from

    values = as_dict(run_from(_read(text)))
    for override in overrides:
        _apply(values, override)
    return run_from(values)


def _read(text):
    path, _, variant = os.path.expanduser(text).partition(":")
    if not Path(path).is_file():
        raise BadInput(f"--config {path} does not exist; configs/ holds the paper's.")
    space = runpy.run_path(path)
    if "get_config" not in space:
        raise BadInput(f"{path} defines no get_config(); see configs/clip.py.")
    try:
        return space["get_config"](*([variant] if variant else []))
    except KeyError as error:
        raise BadInput(f"{path} has no variant {error}.") from error


def _apply(values, override):
    name, equals, text = override.removeprefix("--config.").partition("=")
    if not equals:
        raise BadInput(f"{override} has no value; write --config.{name}=VALUE.")
    *parents, last = name.split(".")
    node, where = values, "config"
    for part in parents:
        node, where = _field(node, part, where), f"{where}.{part}"
    _field(node, last, where)
    node[last] = _value(text)


def _field(node, name, where):
    names = list(node) if isinstance(node, dict) else []
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        rest = f"it has {', '.join(names)}." if names else f"{where} is one value."
        hint = f"did you mean {close[0]!r}?" if close else rest
        raise BadInput(f"{where}.{name} is not in the configuration; {hint}")
    return node[name]


def _value(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
