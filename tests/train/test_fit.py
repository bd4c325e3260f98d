"""Training of every stage: sharded = unsharded, resumed = whole, and under fault."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from dalle2_jax.cli.overrides import load_run
from dalle2_jax.components import initial_params, load_component
from dalle2_jax.data.batches import captioned_batches
from dalle2_jax.errors import BadInput, Preempted
from dalle2_jax.shard.mesh import MeshConfig, make_mesh, to_devices
from dalle2_jax.train.fit import Job, fit
from dalle2_jax.train.inputs import obtain_tokenizer, open_source
from dalle2_jax.train.losses import LOSSES, worsen
from dalle2_jax.train.metrics import read_metrics
from dalle2_jax.train.optim import optimizer
from dalle2_jax.train.run import Corrupt
from dalle2_jax.train.state import create_state
from dalle2_jax.train.step import jit_step

TINY = {
    "clip": (
        "clip.py:small",
        ["model.text.depth=1", "model.image.width=16", "data.size=32"],
    ),
    "noised_clip": (
        "clip.py:noised_small",
        ["model.text.depth=1", "model.image.depth=1", "model.image.width=16"],
    ),
    "classifier": (
        "classifier.py:small",
        ["model.unet.multiples=(1,)", "model.unet.attend=(1,)", "model.size=8"],
    ),
    "prior": ("prior_diffusion.py:small", ["model.width=32", "model.depth=1"]),
    "autoregressive": (
        "prior_autoregressive.py:small",
        ["model.codes=3", "model.decoder.depth=1", "model.buckets=8", "codes_from=16"],
    ),
    "decoder": (
        "decoder_64.py:small",
        ["model.unet.multiples=(1,)", "model.unet.attend=(1,)", "model.size=8"],
    ),
    "upsampler": (
        "upsampler_256.py:small",
        ["model.unet.multiples=(1,)", "model.size=32", "data.size=32"],
    ),
}


def tiny(stage, *changes):
    """A Run of a stage that compiles in seconds."""
    name, smaller = TINY[stage]
    usual = ["batch=8", "steps=4", "log_every=1", "save_every=100"]
    words = [f"--config.{c}" for c in (*usual, *smaller, *changes)]
    return load_run(f"configs/{name}", words)


@pytest.fixture(scope="module")
def home(tmp_path_factory, shards):
    """A model directory with a tiny CLIP and its tokenizer, and the shards."""
    folder = tmp_path_factory.mktemp("home")
    fit(tiny("clip", "steps=2"), job(shards, folder / "clip", folder / "model"))
    return folder / "model", shards


def job(shards, workdir, model):
    return Job([str(path) for path in shards], workdir, model)


def last_state(workdir):
    """One line per parameter of the newest component or state, for comparison."""
    return read_metrics(workdir / "metrics.jsonl")[-1]


@pytest.mark.parametrize("stage", list(TINY))
def test_resumed_equals_uninterrupted_bit_for_bit(stage, home, tmp_path):
    model, shards = home
    whole = fit_in(tmp_path / "whole", tiny(stage), model, shards)

    def interrupt(step, metrics):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted, match="stopped at step 2 of 4"):
        fit_in(tmp_path / "parts", tiny(stage), model, shards, interrupt)
    parts = fit_in(tmp_path / "parts", tiny(stage), model, shards)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    steps = [
        m["step"] for m in read_metrics(tmp_path / "parts" / "run" / "metrics.jsonl")
    ]
    assert steps == [1, 2, 3, 4]


def fit_in(folder, run, model, shards, show=None):
    """Trains into a copy of the model directory; the finished parameters."""
    own = folder / "model"
    if not own.exists():
        own.mkdir(parents=True)
        for name in ("clip", "tokenizer"):
            if run.stage != name:
                (own / name).symlink_to(model / name)
    fit(run, job(shards, folder / "run", own), show)
    return load_component(own, run.stage).params


@pytest.mark.parametrize("stage", list(TINY))
def test_sharded_equals_unsharded(stage, home):
    model, shards = home
    run = tiny(stage, "optim.rate=0.01", "optim.warmup=0")
    clip, work = load_component(model, "clip"), job(shards, None, model)
    source = open_source(run, work)
    tokenizer = obtain_tokenizer(run, work, source)
    batch = next(captioned_batches(source, tokenizer, run.data, 8, 0))
    one = two_steps(run, clip, batch, make_mesh(MeshConfig(1), jax.devices()[:1]))
    many = two_steps(run, clip, batch, make_mesh(MeshConfig(2, 2, 2)))
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(many)
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5, err_msg=str(path))


def two_steps(run, clip, batch, mesh):
    """Gradient norms and moments after two updates on the same batch."""
    tx = optimizer(run.optim, run.steps)
    state = create_state(initial_params(run.stage, run.model, 0), tx, mesh)
    loss = LOSSES[run.stage](run, clip.cfg)
    step = jit_step(state, mesh, loss=loss, tx=tx, optim=run.optim)
    for _ in range(2):
        given = to_devices(mesh, batch)
        state, metrics = step(state, {"clip": clip.params}, given, jax.random.key(1))
    return jax.device_get((metrics["loss"], metrics["grad_norm"]))


def test_a_directory_of_another_run_is_refused(home, tmp_path):
    model, shards = home
    fit(tiny("clip", "steps=1"), job(shards, tmp_path / "run", tmp_path / "model"))
    with pytest.raises(BadInput, match="another config.optim.rate"):
        other = tiny("clip", "steps=1", "optim.rate=0.5")
        fit(other, job(shards, tmp_path / "run", tmp_path / "model"))


def test_a_full_disk_is_one_sentence_and_the_last_commit_stays(home, tmp_path):
    """The limit on file size stands for the full disk: writes fail half-way."""
    model, shards = home
    code = (
        "import resource, sys; sys.path.insert(0, 'tests/train');"
        "from dalle2_jax.cli.main import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000));"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["train", "--config", "configs/clip.py:small", "--data", *map(str, shards)]
    words += ["--workdir", str(tmp_path / "run"), "--model", str(tmp_path / "model")]
    small = ["batch=8", "steps=1", "model.image.width=16"]
    words += [f"--config.{change}" for change in small]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    sentence = done.stderr.strip().split("\n")[-1]
    assert "checkpoint could not be written" in sentence and "free space" in sentence
    left = [p.name for p in (tmp_path / "run" / "checkpoints").glob("*")]
    assert not [name for name in left if name.isdigit()]
    assert not (tmp_path / "model" / "clip").exists()


def test_worsening_leaves_what_it_is_told_to_leave():
    low = jax.random.uniform(jax.random.key(0), (64, 8, 8, 3), minval=-1)
    key = jax.random.key(1)
    assert np.array_equal(worsen(low, key, Corrupt()), low)
    changed = worsen(low, key, Corrupt(blur=0.5)) != low
    share = float(changed.any((1, 2, 3)).mean())
    assert 0.25 < share < 0.75
    noisy = worsen(low, key, Corrupt(noise=0.2)) - low
    assert 0.05 < float(noisy.std()) < 0.2


def test_metrics_cut_short_are_dropped(tmp_path):
    path = Path(tmp_path) / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1, "loss": 2.0}]
