"""What a run takes in: its data source, tokenizer, frozen CLIP, and its batches."""

import jax

from dalle2_jax.components import load_component
from dalle2_jax.data.batches import captioned_batches
from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.errors import BadInput
from dalle2_jax.shard.mesh import replicated
from dalle2_jax.shard.processes import barrier, is_first, spread


def open_source(run, job):
    """The samples that job.data names.

    Raises:
        BadInput: no data there, or none that can be used.
    """
    return ShardSource(job.data)


def obtain_tokenizer(run, job, source):
    """The model directory's tokenizer; CLIP may train one on the captions at hand."""
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


def borrow_clip(run, job, mesh):
    """CLIP's configuration and the frozen parameters a stage needs, on the mesh."""
    if run.stage == "clip":
        return run.model, {}
    if run.stage.startswith("upsampler"):
        return None, {}
    clip = load_component(job.model, "clip")
    layout = jax.tree.map(lambda _: replicated(mesh), clip.params)
    return clip.cfg, {"clip": spread(clip.params, layout)}


def open_batches(run, source, tokenizer, position):
    """The run's host batches from a global sample number on."""
    return captioned_batches(
        source,
        tokenizer,
        run.data,
        run.batch,
        run.seed,
        start=position,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
