"""A run that needs no CLIP and trains in seconds, for tests of what runs keep."""

import shutil

from dalle2_jax.cli.overrides import load_run
from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.data.write_shapes import make_shapes
from dalle2_jax.train.fit import Job

USUAL = ["model.unet.multiples=(1,)", "model.unet.channels=32", "model.size=8"]
USUAL += ["data.size=16", "batch=8", "steps=4", "log_every=1", "save_every=2"]
USUAL += ["optim.warmup=0", "optim.final=1.0"]


def run_of(*changes):
    """A Run of the first upsampler."""
    words = [f"--config.{word}" for word in (*USUAL, *changes)]
    return load_run("configs/upsampler_256.py:small", words)


def words_of(*changes):
    """The same as flags."""
    words = [f"--config.{word}" for word in (*USUAL, *changes)]
    return ["--config", "configs/upsampler_256.py:small", *words]


def shards_in(folder, count=48, seed=0):
    """Three small tar shards of a generated world in a folder of their own."""
    return make_shapes("simple", count, seed, folder, size=16, shard_size=count // 3)


def home_in(folder):
    """A folder with data/ and model/, which holds a tokenizer."""
    shards = shards_in(folder / "data")
    tokenizer = Tokenizer.train(ShardSource(shards).captions(), 600)
    tokenizer.save(folder / "model" / "tokenizer")
    return folder


def job_of(home, workdir, data="data", **more):
    """A Job on the data of a home, or on other data."""
    model = workdir.parent / f"{workdir.name}-model"
    if not model.exists():
        shutil.copytree(home / "model", model)
    return Job([str(home / data)], workdir, model, **more)
