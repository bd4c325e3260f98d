"""What a configuration, the CLIP that it borrows, and a tokenizer must agree on.

All of it is known before anything compiles; where two sides differ, the programs would
fail in the middle of a matrix product, or learn what no sampler asks for.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.errors import BadInput
from dalle2_jax.train.run import CONTRASTIVE, HEARING, Run


class Mismatch(NamedTuple):
    """A field of the configuration, its value, and the one that it must have."""

    field: str
    ours: int
    theirs: int


def mismatches(run: Run, clip_cfg: Any) -> Iterator[Mismatch]:
    """The fields of a run that do not fit the CLIP whose embeddings it hears.

    Captions are read over as many tokens when they are drawn as CLIP has places, so a
    smaller context is no less wrong than a larger one. A field that is 0 is not used.

    Args:
        run: Run.
        clip_cfg: ClipConfig.
    """
    if run.stage not in HEARING:
        return
    model, text = run.model, clip_cfg.text
    own = getattr(model, "caption", None)
    states = getattr(
        model, "context", text.context
    )  # of the caption; a decoder has all
    pairs = (
        ("model.clip", model.clip, clip_cfg.clip),
        ("model.text_width", model.text_width if states else 0, text.width),
        ("model.context", states, text.context),
        ("model.caption.context", own.context if own else 0, text.context),
        ("data.context", run.data.context, text.context),
    )
    for name, ours, theirs in pairs:
        if ours not in (0, theirs):
            yield Mismatch(name, ours, theirs)


def check_borrowed(run: Run, clip_cfg: Any, lender: Path) -> None:
    """Refuses a run that cannot hear the CLIP of its model directory.

    Raises:
        BadInput: names the fields and both values of each.
    """
    found = [
        f"config.{field} is {ours}, the CLIP of {lender} "
        f"{'reads' if field.endswith('context') else 'has'} {theirs}"
        for field, ours, theirs in mismatches(run, clip_cfg)
    ]
    if found:
        raise BadInput(
            f"{'; '.join(found)}; set what differs, as --config.NAME=VALUE, or give "
            "the --model whose CLIP this configuration is for."
        )


def check_tokens(run: Run, clip_cfg: Any, tokenizer: Any, lender: Path) -> None:
    """Refuses a tokenizer whose ids the networks that read captions do not know.

    Args:
        run: Run.
        clip_cfg: ClipConfig of the CLIP that is trained or borrowed, or None.
        tokenizer: Tokenizer; anything else (labels, None) is not looked at.
        lender: the model directory, for the message.

    Raises:
        BadInput: names the field, the number of ids and that of the tokenizer.
    """
    if not isinstance(tokenizer, Tokenizer):
        return
    for field, text in _readers(run, clip_cfg):
        if tokenizer.size > text.vocab:
            raise BadInput(
                f"{field}.vocab is {text.vocab}, and {lender}/tokenizer has "
                f"{tokenizer.size} ids, more than the network knows; give the "
                "tokenizer that belongs to it."
            )
        pooled_at_end = getattr(text, "pool", "argmax") == "end"
        if pooled_at_end and text.end_id != tokenizer.end:
            raise BadInput(
                f"{field}.end_id is {text.end_id}, and captions of {lender}/tokenizer "
                f"end with {tokenizer.end}; give the tokenizer that belongs to it."
            )
    if run.stage in CONTRASTIVE and run.data.context != run.model.text.context:
        raise BadInput(
            f"config.data.context is {run.data.context}, and "
            f"config.model.text.context {run.model.text.context}; make them equal."
        )


def _readers(run, clip_cfg):
    """(name, configuration) of what reads tokens in a run."""
    if run.stage in CONTRASTIVE:
        yield "config.model.text", run.model.text
    elif clip_cfg is not None:
        yield "clip/config.json: model.text", clip_cfg.text
    own = getattr(run.model, "caption", None)
    if own is not None:
        yield "config.model.caption", own
