"""Stages that hear stored embeddings: what is read, and what must fit."""

import os

from dalle2_jax.components import params_sha256, read_json
from dalle2_jax.data.embeddings import EmbeddingSource, is_embeddings
from dalle2_jax.data.members import MemberSource
from dalle2_jax.errors import BadInput
from dalle2_jax.train.embed import ABOUT
from dalle2_jax.train.run import HEARING

PRIORS = ("prior", "autoregressive")


def folder_of(data):
    """The folder of embeddings that --data names, or None for anything else."""
    one = data[0] if isinstance(data, list | tuple) and len(data) == 1 else data
    if isinstance(one, str):
        one = os.path.expanduser(one)
    return one if is_embeddings(one) else None


def open_embeddings(run, folder):
    """The source of a prior.

    Raises:
        BadInput: another stage, another width, or no text that this prior can hear.
    """
    if run.stage not in PRIORS:
        raise BadInput(
            f"{folder} holds embeddings, from which {' and '.join(PRIORS)} learn; give "
            f"{run.stage} tar shards with pictures."
        )
    source = EmbeddingSource(folder)
    _check_width(source, run)
    if not source.has_captions and (run.model.context or not source.has_text):
        raise BadInput(
            f"{folder} holds no captions (metadata/metadata_N.parquet with a column "
            f"'caption'), of whose tokens this {run.stage} hears "
            f"{run.model.context}; add them, or train a diffusion prior of the pooled "
            "text embeddings alone (config.model.context=0)."
        )
    return source


def needed(run):
    """What a sample of tar shards must have for this run.

    Raises:
        BadInput: config.data.embeddings in a stage that hears none.
    """
    member, need = run.data.embeddings, []
    if member and run.stage not in HEARING:
        raise BadInput(
            f"config.data.embeddings is {member!r}, but the {run.stage} stage hears no "
            "embeddings; leave it out."
        )
    if not (member and run.stage in PRIORS):
        need.append("picture")
    if not run.data.caption:
        need.append("caption")
    return (*need, member) if member else tuple(need)


def with_members(run, shards):
    """MemberSource of shards that were opened with `needed`.

    Raises:
        BadInput: no embedding there, or another width.
    """
    source = MemberSource(shards, run.data.embeddings, run.stage not in PRIORS)
    if run.stage in PRIORS:
        _check_width(source, run)
    return source


def _check_width(source, run):
    if source.width != run.model.clip:
        raise BadInput(
            f"{source.first} holds embeddings of width {source.width}, "
            f"config.model.clip is {run.model.clip}; set it to the width of the CLIP "
            "that made them."
        )


def without_captions(run, source):
    """Whether batches hold stored text embeddings, so that CLIP is not needed."""
    return (
        isinstance(source, EmbeddingSource)
        and source.has_text
        and not run.model.context
    )


def check_clip(source, clip):
    """Refuses embeddings that this CLIP cannot have made.

    Args:
        source: EmbeddingSource or MemberSource.
        clip: Component.

    Raises:
        BadInput: another width, another CLIP's digest, or unit vectors where this
            CLIP's stages hear them as they are.
    """
    if source.width != clip.cfg.clip:
        raise BadInput(
            f"{source.first} holds embeddings of width {source.width}, the CLIP of "
            f"--model has {clip.cfg.clip}; give the model that made them."
        )
    if isinstance(source, EmbeddingSource):
        _check_digest(source.folder / ABOUT, clip)
    if source.is_unit and not clip.cfg.unit:
        raise BadInput(
            f"{source.first} holds unit vectors, while the stages of this CLIP hear its"
            " embeddings at their own length (config.json: unit is false); write them "
            "with `dalle2 data embed`, which keeps the length."
        )


def _check_digest(path, clip):
    if not path.is_file():
        return
    made_by = read_json(path, "write the embeddings again").get("clip")
    if made_by != params_sha256(clip.params):
        raise BadInput(
            f"{path} says that another CLIP made these embeddings (SHA-256 "
            f"{str(made_by)[:12]}...); write them again with `dalle2 data embed`."
        )


def findings(source, unit):
    """Sentences on rows that were left out, and on lengths that become 1.

    Args:
        source: EmbeddingSource or MemberSource.
        unit: whether the stages of this CLIP hear unit vectors.
    """
    if source.problems:
        counts = ", ".join(f"{reason}: {n}" for reason, n in source.problems.items())
        yield f"{source!r}: left out are {counts}."
    if unit and not source.is_unit:
        low, high = source.norms
        yield (
            f"{source!r}: embeddings have lengths {low:.3g} to {high:.3g}; they are "
            "scaled to 1."
        )
