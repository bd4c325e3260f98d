"""DALLE2-pytorch by generations: what a saved prior is, before its table is chosen.

The state dicts of two ways of attention have the same keys, so that files of that time
need the version of the package; the rest can be read off the keys.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from dalle2_jax.convert.containers import unwrapped
from dalle2_jax.convert.fields import (
    FLAG,
    GROUP,
    NUMBER,
    STEPS,
    TEXT,
    check_fields,
    optional,
)
from dalle2_jax.convert.pickle_calls import Inert
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


NET_FIELDS = {  # field of DiffusionPriorNetwork, ours
    "dim": "clip",
    "depth": "depth",
    "max_text_len": "context",
    "num_timesteps": "times",
    "num_time_embeds": "time_tokens",
    "num_image_embeds": "image_tokens",
    "num_text_embeds": "text_tokens",
    "dim_head": "head_width",
    "heads": "heads",
    "ff_mult": "mlp_ratio",
    "norm_in": "norm_in",
    "norm_out": "norm_out",
    "final_proj": "project_out",
    "normformer": "normformer",
    "rotary_emb": "rotary",
}
PRIOR_FIELDS = {  # field of DiffusionPrior that sampling depends on, its default
    "timesteps": 1000,
    "sample_timesteps": None,
    "predict_x_start": True,
    "predict_v": False,
    "beta_schedule": "cosine",
    "condition_on_text_encodings": True,
    "sampling_clamp_l2norm": False,
    "init_image_embed_l2norm": False,
    "image_embed_scale": None,
}
PRIOR_KINDS = {
    "net": optional(GROUP),
    "timesteps": STEPS,
    "sample_timesteps": optional(STEPS),
    "predict_x_start": FLAG,
    "predict_v": FLAG,
    "beta_schedule": TEXT,
    "condition_on_text_encodings": FLAG,
    "sampling_clamp_l2norm": FLAG,
    "init_image_embed_l2norm": FLAG,
    "image_embed_scale": optional(NUMBER),
}
TRAINING = {  # without influence here, where every sample has unit length
    "attn_dropout",
    "ff_dropout",
    "cond_drop_prob",
    "text_cond_drop_prob",
    "image_cond_drop_prob",
    "loss_type",
    "image_embed_dim",
    "image_size",
    "image_channels",
    "training_clamp_l2norm",
    "sampling_final_clamp_l2norm",
    "clip",
    "clip_adapter_overrides",
    "net",
    "version",
}


class Saved(NamedTuple):
    """What a file holds: state {key: array}; config, its fields; version or None."""

    state: dict
    config: dict
    version: Any


def unpack(saved, config=None, notes=None):
    """Tells the containers apart and takes the averaged weights where there are some.

    saved: a trainer checkpoint ("model", "ema", "ema_model", ...), a saved model
    ("version", "config", "model") or a bare state dict. config: the JSON beside it.
    Weights of a CLIP that was saved with the prior are left out. notes: gets a
    sentence of a prefix that was taken off all keys.

    Raises:
        BadInput: no dict of names, or a configuration that is none.
    """
    if not isinstance(saved, Mapping):
        raise BadInput("a DALLE2-pytorch prior is a dict of names, and this is none.")
    state = saved
    for name in ("model", "ema", "ema_model"):
        state = saved[name] if isinstance(saved.get(name), Mapping) else state
    state = {key: value for key, value in state.items() if isinstance(key, str)}
    state, prefix = unwrapped(state)
    if prefix and notes is not None:
        notes.append(f"the prefix {prefix} of all keys was taken off.")
    if any(key.startswith("ema_model.") for key in state):
        state = {
            key.removeprefix("ema_model."): value
            for key, value in state.items()
            if key.startswith("ema_model.")
        }
    state = {k: v for k, v in state.items() if not k.startswith("clip.")}
    config = saved.get("config") or config or {}
    check_fields({"config": config}, {"config": GROUP}, "the saved prior")
    prior = config.get("prior", config)
    check_fields({"prior": prior}, {"prior": GROUP}, "the prior's configuration")
    version = next(
        filter(None, (c.get("version") for c in (saved, config, prior))), None
    )
    return Saved(state, {**prior, "version": version}, version)


def check_prior(config: dict) -> None:
    """Refuses fields of a prior's configuration that are not understood.

    Raises:
        BadInput: a field of another kind, or one that is not known; names it.
    """
    check_fields(PRIOR_FIELDS | config, PRIOR_KINDS, "prior")
    net = config.get("net") or {}
    for where, fields, known in (
        ("prior", config, {*PRIOR_FIELDS, *TRAINING}),
        ("prior.net", net, {*NET_FIELDS, *TRAINING, "self_cond"}),
    ):
        for name in sorted(set(fields) - known, key=str):
            raise BadInput(f"{where}.{name} is no field of a prior that is understood.")
    if net.get("self_cond"):
        raise BadInput("prior.net.self_cond is supported as false only.")


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
    number = tuple(int(n) for n in re.findall(r"\d{1,6}", _text(version))[:3])
    if number:
        fitting = [g for g in fitting if g.first <= number <= g.last]
    elif null == THREE_NULLS:
        fitting = fitting[:1]
    if len(fitting) != 1:
        raise BadInput(_undecided(null, version))
    if fitting[0].refused:
        raise BadInput(f"{fitting[0]} cannot be read: {fitting[0].refused}.")
    return fitting[0]


def _text(version):
    """A version as text: numbers, strings and packaging's Version have one."""
    plain = isinstance(version, (str, int, float, Inert))
    return str(version) if plain else ""


def _undecided(null, version):
    """Why no generation, or more than one, fits."""
    if version:
        return (
            f"a DALLE2-pytorch prior with the key {null} and the version "
            f"{_text(version)} is not known; versions 0.23.3 to 1.15.6 are."
        )
    return (
        f"a prior with {ONE_NULL} attends in one way up to version 1.4.2 and in "
        'another after it; put "version" into its configuration ("1.1.0" for the prior '
        "that LAION published)."
    )
