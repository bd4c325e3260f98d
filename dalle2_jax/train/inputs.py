"""What a run takes in: its data source, tokenizer, frozen CLIP, and its batches."""

import logging

import jax

from dalle2_jax.components import load_component, params_sha256
from dalle2_jax.data.batches import captioned_batches
from dalle2_jax.data.embeddings import EmbeddingSource, embedding_batches
from dalle2_jax.data.labels import classes_of
from dalle2_jax.data.members import MemberSource, member_batches
from dalle2_jax.data.prepared import is_prepared, open_prepared
from dalle2_jax.data.sources import open_shards, shapes_folder, shapes_named
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.data.write_shapes import make_shapes
from dalle2_jax.errors import BadInput
from dalle2_jax.shard.mesh import local_rows, make_mesh
from dalle2_jax.shard.processes import barrier, is_first, spread
from dalle2_jax.shard.rules import shardings
from dalle2_jax.train.agreement import check_borrowed
from dalle2_jax.train.embedded import (
    check_clip,
    findings,
    folder_of,
    needed,
    open_embeddings,
    with_members,
    without_captions,
)
from dalle2_jax.train.pca import check_tables
from dalle2_jax.train.run import HEARING


def open_source(run, job):
    """The samples that job.data names: tar shards, or for priors embeddings.

    "tfds:NAME:SPLIT" is a data set that TensorFlow Datasets prepared,
    "shapes:WORLD[:COUNT]" is written as shards into the run directory first.

    Raises:
        BadInput: no data there, or none that can be used.
    """
    folder = folder_of(job.data)
    if folder is not None:
        return open_embeddings(run, folder)
    if is_prepared(job.data):
        return open_prepared(job.data, run.data)
    shapes = shapes_named(job.data)
    paths = _written(shapes, run, job) if shapes else job.data
    shards = open_shards(paths, run.data, _share(), barrier, needed(run))
    return with_members(run, shards) if run.data.embeddings else shards


def _written(shapes, run, job):
    """The folder of a generated data set; process 0 writes it where it is not."""
    folder, pixels = shapes_folder(*shapes, run.data.size, job.workdir / "data")
    if is_first():
        make_shapes(*shapes, seed=0, out_dir=folder, size=pixels)
    barrier("shapes written")
    return folder


def _share():
    """Number of this process and of all."""
    return jax.process_index(), jax.process_count()


def skip_log(workdir):
    """The file where this process notes what it leaves out of the data."""
    number = "" if is_first() else f"-{jax.process_index()}"
    return workdir / f"skipped{number}.jsonl"


def obtain_tokenizer(run, job, source):
    """The model directory's tokenizer; CLIP may train one on the captions at hand.

    A classifier's reads labels. None where batches hold text embeddings, not tokens.
    """
    if without_captions(run, source):
        return None
    if run.stage == "classifier":
        return classes_of(run.data.classes, run.model.unet.out_channels)
    folder = job.model / "tokenizer"
    barrier("tokenizer sought")
    if folder.is_dir():
        return Tokenizer.load(folder)
    if run.stage != "clip" or run.vocab <= 0:
        raise BadInput(
            f"{folder} does not exist; train CLIP into {job.model} first, or set "
            "config.vocab to train a tokenizer."
        )
    if is_first():
        Tokenizer.train(source.captions(), run.vocab).save(folder)
    barrier("tokenizer")
    return Tokenizer.load(folder)


def borrow_clip(run, job, mesh, source=None):
    """CLIP's configuration and the frozen parameters a stage needs, on the mesh.

    Stored embeddings need no image tower, and with text embeddings no CLIP.
    """
    if run.stage == "clip":
        return run.model, {}
    if run.stage not in HEARING:
        return None, {}
    if without_captions(run, source):
        _tell(findings(source, unit=True))
        return None, {}
    clip = load_component(job.model, "clip")
    check_borrowed(run, clip.cfg, job.model)
    params = clip.params
    if run.codes:
        check_tables(run.codes, params_sha256(params))
    if isinstance(source, EmbeddingSource | MemberSource):
        check_clip(source, clip)
        _tell(findings(source, clip.cfg.unit))
        params = {name: part for name, part in params.items() if name != "image"}
    return clip.cfg, {"clip": spread(params, shardings(params, mesh))}


def _tell(sentences):
    for sentence in sentences if is_first() else ():
        logging.getLogger(__name__).warning(sentence)


BATCHES = {EmbeddingSource: embedding_batches, MemberSource: member_batches}


def open_batches(run, source, tokenizer, position, log=None):
    """The run's host batches from a position on; log: see `skip_log`."""
    make = BATCHES.get(type(source), captioned_batches)
    return make(
        source,
        tokenizer,
        run.data,
        run.batch,
        run.seed,
        start=position,
        rows=local_rows(make_mesh(run.mesh), run.batch),
        log=log,
    )
