#!/usr/bin/env python3
"""Fills ${NAME} and ${NAME:-default} in a file from NAME=VALUE words, and prints it.

launch/render.py launch/jobset.yaml IMAGE=registry/dalle2:tpu HOSTS=16 ...
"""

import importlib.util
import re
import sys
from pathlib import Path

FIELD = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def render(text, values):
    """The text with its fields filled; raises KeyError with those that lack a value.

    Lines that are comments are left as they are.
    """
    missing = []

    def fill(match):
        name, default = match.groups()
        value = values.get(name, default)
        if value is None:
            missing.append(name)
        return str(value)

    lines = text.split("\n")
    filled = [
        line if line.lstrip().startswith("#") else FIELD.sub(fill, line)
        for line in lines
    ]
    if missing:
        raise KeyError(", ".join(dict.fromkeys(missing)))
    return "\n".join(filled)


def main(words):
    """Prints the rendered file; 2 and one sentence where something is missing."""
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    path, *pairs = words
    values = dict(pair.partition("=")[::2] for pair in pairs)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        print(f"{path} cannot be read ({reason}); name a launch file.", file=sys.stderr)
        return 2
    if any('"' in value or "\n" in value for value in values.values()):
        print("values hold no \" and no line breaks; quote with '.", file=sys.stderr)
        return 2
    unknown = set(values) - {name for name, _ in FIELD.findall(text)}
    if unknown:
        print(f"{path} has no field {', '.join(sorted(unknown))}.", file=sys.stderr)
        return 2
    try:
        filled = render(text, values)
    except KeyError as error:
        print(f"{path} needs {error.args[0]}; add NAME=VALUE.", file=sys.stderr)
        return 2
    wrong = problem_of(filled) if path.endswith((".yaml", ".yml")) else ""
    if wrong:
        print(f"{path} is no YAML once it is filled ({wrong}).", file=sys.stderr)
        return 2
    print(filled, end="")
    return 0


def problem_of(text):
    """Why a text is no YAML, in a line, or "" (also where no PyYAML is installed)."""
    if importlib.util.find_spec("yaml") is None:
        return ""
    import yaml

    try:
        list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        return where + (getattr(error, "problem", None) or str(error).split("\n")[0])
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
