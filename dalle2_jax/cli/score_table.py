"""The numbers of `dalle2 evaluate` in words: a table, warnings, a JSON file."""

import json
import sys

KEY = 12  # letters of a SHA-256 that a table shows


def warn(setup, material):
    """Says on stderr what makes the numbers to come poor ones."""
    from dalle2_jax.evaluate.judge import left_out
    from dalle2_jax.evaluate.protocol import FEW

    n = material.samples.count
    if setup.metrics and n < FEW:
        print(
            f"{n} samples: below {FEW:,} distances lie too high, and compare only with "
            "those of as many samples.",
            file=sys.stderr,
        )
    for reason in left_out(setup, material).values():
        print(f"{reason}; the other numbers are computed.", file=sys.stderr)


def print_table(scores):
    """A row per number with what belongs to it; what the rows share stands below."""
    from rich.console import Console
    from rich.table import Table

    if not scores:
        return
    columns = ("number", "value", "±", "n", "reference", "features", "resize", "crop")
    table = Table(*columns)
    for name, found in scores.items():
        table.add_row(*_row(name, found))
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
    for line in dict.fromkeys(_legend(scores.values())):
        console.print(line, highlight=False, soft_wrap=True)


def _row(name, found):
    value, spread = found["value"], found.get("deviation")
    reference = found.get("reference")
    return (
        name,
        _value(found) if value is None else f"{value:.6g}",
        "" if spread is None else f"{spread:.2g}",
        str(found["n"]),
        f"{reference['sha256'][:KEY]} ({reference['n'] or '?'})" if reference else "",
        found["features_sha256"][:KEY],
        found["resize"],
        f"{found['crop']} {found['size']}",
    )


def _value(found):
    return "too few" if "reason" in found else "not finite"


def _legend(scores):
    """Lines on what the rows name by the beginning of a SHA-256, and on the samples."""
    for found in scores:
        if found.get("reference"):
            yield f"{found['reference']['sha256'][:KEY]}: {found['reference']['name']}"
    for found in scores:
        yield f"{found['features_sha256'][:KEY]}: {found['features']}"
    yield from (found["reason"] for found in scores if "reason" in found)
    for found in scores:
        drawn = found["samples"]
        yield f"{drawn['sha256'][:KEY]}: pictures, {_origin(drawn)}"
        yield from stage_lines(drawn)
        yield f"protocol: {found['protocol']}; dalle2_jax {found['version']}"


def _origin(drawn):
    if "model" not in drawn:
        return drawn["name"]
    return f"{drawer(drawn)}, captions {drawn['captions_sha256'][:KEY]}"


def drawer(drawn):
    """Who drew samples, in words, of `protocol.model_facts`."""
    model, key = drawn["model"], drawn["model_sha256"][:KEY]
    return f"drawn by {model} {key}, seed {drawn['seed']}"


def stage_lines(drawn):
    """A line for each stage that drew, of `model_facts`; none for pictures as given."""
    for stage, way in drawn.get("sampling", {}).items():
        yield (
            f"  {stage}: {way['sampler']}, steps {way['steps']}, guidance "
            f"{way['guidance']:g}; trained {drawn['trained_steps'][stage]} steps, "
            f"EMA {drawn['ema'][stage]}"
        )


def write_scores(path, scores, settings):
    """Writes {"scores": {name: number}, "settings": all that they depend on}."""
    from dalle2_jax.components import write_json

    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"scores": scores, "settings": settings})
    print(f"scores in {path}")


def refuse_other(path, settings):
    """Refuses to write over the result of other settings.

    Raises:
        BadInput: the file holds one, or something else; names the first difference.
    """
    from dalle2_jax.components import read_json
    from dalle2_jax.errors import BadInput
    from dalle2_jax.evaluate.collect import difference

    if not path.exists():
        return
    found = read_json(path, "choose another --out")
    known = found.get("settings") if isinstance(found, dict) else None
    if known is None:
        raise BadInput(f"{path} holds no scores of this kind; choose another --out.")
    field = difference(json.loads(json.dumps(settings)), known)
    if field:
        raise BadInput(
            f"{path} holds the scores of another {field}; choose another --out or "
            "remove it."
        )
