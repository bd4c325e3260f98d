"""Configuration files and the flags that change them: --config.optim.rate=1e-4."""

import ast
import difflib
import runpy
from pathlib import Path

from dalle2_jax.errors import BadInput


def load_config(text, overrides=()):
    """The ConfigDict of `path.py` or `path.py:variant`, with overrides applied.

    Args:
        text: path of a file that defines get_config(variant), the variant optional.
        overrides: "--config.a.b=value" strings; values are Python literals or words.

    Raises:
        BadInput: no such file, no get_config, an unknown variant or field.
    """
    path, _, variant = str(text).partition(":")
    if not Path(path).is_file():
        raise BadInput(f"--config {path} does not exist; configs/ holds the paper's.")
    space = runpy.run_path(path)
    if "get_config" not in space:
        raise BadInput(f"{path} defines no get_config(); see configs/clip.py.")
    try:
        config = space["get_config"](*([variant] if variant else []))
    except KeyError as error:
        raise BadInput(f"{path} has no variant {error}.") from error
    for override in overrides:
        _apply(config, override)
    return config


def _apply(config, override):
    name, equals, text = override.removeprefix("--config.").partition("=")
    if not equals:
        raise BadInput(f"{override} has no value; write --config.{name}=VALUE.")
    *parents, last = name.split(".")
    node, where = config, "config"
    for part in parents:
        node, where = _field(node, part, where), f"{where}.{part}"
    _field(node, last, where)
    with node.unlocked():
        try:
            node[last] = _value(text)
        except TypeError as error:
            kind = type(node[last]).__name__
            raise BadInput(f"{where}.{last} must be {kind}, not {text!r}.") from error


def _field(node, name, where):
    names = list(node.keys()) if hasattr(node, "keys") else []
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(names)}."
        raise BadInput(f"{where}.{name} is not in the configuration; {hint}")
    return node[name]


def _value(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
