"""DALLE2-pytorch by generations: what a saved prior is, before its table is chosen.

The state dicts of two ways of attention have the same keys, so that files of that time
need the version of the package; the rest can be read off the keys.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from dalle2_jax.errors import BadInput

STACK = "net.causal_transformer"
THREE_NULLS, ONE_NULL = "net.null_text_encodings", "net.null_text_embed"


class Generation(NamedTuple):
    """What the package was like from one version up to another.

    refused: why its files cannot be read, "" if they can. grid: how DDIM spread its
    steps (see `schedule.kept_steps`).
    """

    first: tuple[int, ...]
    last: tuple[int, ...]
    null: str
    attention: str
    grid: str
    refused: str = ""

    def __str__(self):
        first, last = (".".join(map(str, v)) for v in (self.first, self.last))
        nulls = "three nulls" if self.null == THREE_NULLS else "one null"
        return f"DALLE2-pytorch {first} to {last} ({self.attention} attention, {nulls})"


GENERATIONS = [
    Generation((1, 10, 4), (1, 15, 6), THREE_NULLS, "cosine", "lucid"),
    Generation(
        (1, 9, 0),
        (1, 10, 3),
        THREE_NULLS,
        "cosine",
        "laion",
        "its guidance never used null_text_embeds, which are therefore untrained",
    ),
    Generation((1, 4, 3), (1, 8, 4), ONE_NULL, "cosine", "laion"),
    Generation((0, 23, 3), (1, 4, 2), ONE_NULL, "dot", "laion"),
    Generation(
        (0, 23, 1),
        (0, 23, 2),
        ONE_NULL,
        "dot",
        "laion",
        "every norm divided by the row's maximum in those two versions",
    ),
]
OLDER = [  # a key of files that came before, why they cannot be read
    (r"\.(gamma|beta)$", "its norms are called gamma, as before 0.16.0"),
    (r"^net\.", "it has no learned padding, as before 0.23.1, and masks captions"),
]


class Saved(NamedTuple):
    """What a file holds: state {key: array}; config, its fields; version or None."""

    state: dict
    config: dict
    version: Any


def unpack(saved, config=None):
    """Tells the containers apart and takes the averaged weights where there are some.

    saved: a trainer checkpoint ("model", "ema", "ema_model", ...), a saved model
    ("version", "config", "model") or a bare state dict. config: the JSON beside it.
    Weights of a CLIP that was saved with the prior are left out.
    """
    state = saved
    for name in ("model", "ema", "ema_model"):
        state = saved[name] if isinstance(saved.get(name), Mapping) else state
    if any(key.startswith("ema_model.") for key in state):
        state = {
            key.removeprefix("ema_model."): value
            for key, value in state.items()
            if key.startswith("ema_model.")
        }
    state = {k: v for k, v in state.items() if not k.startswith("clip.")}
    config = dict(saved.get("config") or config or {})
    prior = dict(config.get("prior", config))
    version = next(
        filter(None, (c.get("version") for c in (saved, config, prior))), None
    )
    return Saved(state, {**prior, "version": version}, version)


def recognise(state, version=None):
    """The Generation of a state dict.

    version: of the package that wrote it, "1.1.0"; needed where keys leave a choice.

    Raises:
        BadInput: no such prior, too old, or undecided; says why.
    """
    if not any(key.startswith(f"{STACK}.") for key in state):
        raise BadInput(f"no key begins with {STACK}: this is no DALLE2-pytorch prior.")
    null = next((key for key in (THREE_NULLS, ONE_NULL) if key in state), None)
    for pattern, why in OLDER:
        if any(re.search(pattern, k) for k in state) and null is None:
            raise BadInput(f"this DALLE2-pytorch prior is too old to be read: {why}.")
    fitting = [g for g in GENERATIONS if g.null == null]
    number = tuple(int(n) for n in re.findall(r"\d+", str(version or ""))[:3])
    if number:
        fitting = [g for g in fitting if g.first <= number <= g.last]
    elif null == THREE_NULLS:
        fitting = fitting[:1]
    if len(fitting) != 1:
        raise BadInput(_undecided(null, version))
    if fitting[0].refused:
        raise BadInput(f"{fitting[0]} cannot be read: {fitting[0].refused}.")
    return fitting[0]


def _undecided(null, version):
    """Why no generation, or more than one, fits."""
    if version:
        return (
            f"a DALLE2-pytorch prior with the key {null} and the version {version} is "
            "not known; versions 0.23.3 to 1.15.6 are."
        )
    return (
        f"a prior with {ONE_NULL} attends in one way up to version 1.4.2 and in "
        'another after it; put "version" into its configuration ("1.1.0" for the prior '
        "that LAION published)."
    )
