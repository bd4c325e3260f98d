"""A whole run: bad steps and returns, averages, fine-tuning, traces, who looks on."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.cli.overrides import load_run
from dalle2_jax.components import load_component, read_json
from dalle2_jax.errors import BadInput, Failed
from dalle2_jax.train import fit as engine
from dalle2_jax.train.begin import inherited
from dalle2_jax.train.losses import LOSSES, Loss
from dalle2_jax.train.metrics import open_log, read_metrics

SMALL = ["model.unet.multiples=(1,)", "model.unet.channels=32", "model.size=16"]
USUAL = ["data.size=16", "batch=8", "steps=8", "log_every=1", "save_every=2"]
SICK = 7  # a picture of nothing but this


def tiny(*changes):
    """A Run of the first upsampler, which needs no CLIP."""
    words = [f"--config.{word}" for word in (*SMALL, *USUAL, *changes)]
    return load_run("configs/upsampler_256.py:small", words)


@pytest.fixture(scope="module")
def model(tmp_path_factory, shards):
    """A model directory with a tokenizer."""
    from dalle2_jax.data.records import ShardSource
    from dalle2_jax.data.tokens import Tokenizer

    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer.train(ShardSource(shards).captions(), 600)
    tokenizer.save(folder / "tokenizer")
    return folder


class Poisoned:
    """Batches of which those that begin at some positions are sick."""

    def __init__(self, batches, where):
        self.batches, self.where = batches, where

    @property
    def position(self):
        return self.batches.position

    def close(self):
        self.batches.close()

    def __next__(self):
        sick = self.position in self.where
        batch = next(self.batches)
        return batch._replace(image=np.full_like(batch.image, SICK)) if sick else batch


def poison(monkeypatch, where):
    """Losses of sick batches are NaN."""
    real, upsampler_loss = engine.open_batches, LOSSES["upsampler"]

    def open_batches(*args):
        return Poisoned(real(*args), where)

    def sick_loss(run, clip_cfg):
        loss = upsampler_loss(run, clip_cfg)

        def prepare(frozen, batch, key):
            shown = loss.prepare(frozen, batch, key)
            sick = jnp.all(batch.image == SICK)
            return shown._replace(x_0=jnp.where(sick, jnp.nan, shown.x_0))

        return Loss(prepare, loss.score)

    monkeypatch.setattr(engine, "open_batches", open_batches)
    monkeypatch.setitem(LOSSES, "upsampler", sick_loss)


def job(shards, workdir, model, **more):
    return engine.Job([str(path) for path in shards], workdir, model, **more)


GUARD = ["guard.most=2", "guard.window=4"]


def test_it_goes_back_and_passes_over_the_data(model, shards, tmp_path, monkeypatch):
    poison(monkeypatch, where=(32, 40))
    work, run = tmp_path / "run", tiny(*GUARD, "guard.then='rollback'")
    engine.fit(run, job(shards, work, model))
    lines = [json.loads(line) for line in (work / "skipped_steps.jsonl").open()]
    steps = [(line.get("step"), line.get("data_from")) for line in lines[:2]]
    assert steps == [(5, 32), (6, 40)] and len(lines[0]["times"]) == 8
    assert lines[2] == {"rollback": 4, "position": 48} and len(lines) == 3
    log = read_metrics(work / "metrics.jsonl")
    assert [line["step"] for line in log] == list(range(1, 9))
    assert all(np.isfinite(line["loss"]) for line in log)
    assert {"mfu", "loss_q0"} <= {name for line in log for name in line}
    data = (work / "checkpoints" / "8" / "data" / "metadata").read_text()
    assert json.loads(data)["position"] == 48 + 4 * 8


def test_it_stops_where_going_back_did_not_help(model, shards, tmp_path, monkeypatch):
    poison(monkeypatch, where=range(32, 1000))
    how = [*GUARD, "guard.then='rollback'", "guard.rollbacks=2", "save_every=1"]
    with pytest.raises(Failed, match="gone back 2 times and steps from 5 on are bad"):
        engine.fit(tiny(*how), job(shards, tmp_path / "a", model))
    with pytest.raises(Failed, match="2 of the last 4 steps up to 6 were passed over"):
        engine.fit(tiny(*GUARD), job(shards, tmp_path / "b", model))


class Board:
    """A stand-in for the module wandb and for its runs."""

    def __init__(self):
        self.id, self.lines, self.given = "abc", [], []
        self.Image = np.asarray
        self.closed = 0

    def init(self, **given):
        self.given.append(given)
        return self

    def define_metric(self, name, step_metric):
        assert (name, step_metric) == ("*", "train_step")

    def log(self, line):
        self.lines.append(line)

    def finish(self):
        self.closed += 1


def test_averages_traces_boards_and_a_start_from_a_component(
    model, shards, tmp_path, monkeypatch
):
    board = Board()
    monkeypatch.setitem(sys.modules, "wandb", board)
    first = tiny("steps=3", "optim.ema_more=(0.01,)", "optim.warmup=0")
    work = tmp_path / "first"
    engine.fit(first, job(shards, work, model, wandb="unclip", profile=(2, 3)))
    assert list((work / "profile").rglob("*.xplane.pb"))
    assert [line["train_step"] for line in board.lines] == [1, 2, 3]
    main = load_component(model, "upsampler").params

    engine.fit(first, job(shards, work, model, wandb="unclip", ema=0.01))
    assert board.given[1]["id"] == "abc" and board.closed == 2
    other = load_component(model, "upsampler").params
    pairs = zip(jax.tree.leaves(main), jax.tree.leaves(other))
    assert not all(np.array_equal(a, b) for a, b in pairs)
    with pytest.raises(BadInput, match="upsampler: .* is absent, config.model asks"):
        inherited(tiny("model.unet.depth=2"), model)
    with pytest.raises(BadInput, match="--ema 0.7 is not kept by this run"):
        engine.fit(first, job(shards, work, model, ema=0.7))

    second = tiny("steps=1", "optim.rate=1e-12", "optim.warmup=0")
    out = tmp_path / "second"
    lent = tmp_path / "model"
    lent.mkdir()
    (lent / "tokenizer").symlink_to(model / "tokenizer")
    engine.fit(second, job(shards, out, lent, init=model))
    tuned = load_component(lent, "upsampler").params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), tuned, other)
    origin = {"init": str(model), "steps": 3, "seed": 0}
    assert read_json(out / "config.json", "")["provenance"] == origin
    assert load_component(lent, "upsampler").config["provenance"] == origin
    engine.fit(second, job(shards, out, lent))  # resumes without the flag
    assert read_json(out / "config.json", "")["provenance"] == origin


def test_a_start_from_other_sizes_or_from_nothing_is_refused(model, shards, tmp_path):
    with pytest.raises(BadInput, match="--init needs a model directory with a ups"):
        engine.fit(tiny(), job(shards, tmp_path / "a", model, init=tmp_path))
    with pytest.raises(BadInput, match="is no range of steps of this run, which are"):
        engine.fit(tiny(), job(shards, tmp_path / "a", model, profile=(3, 9)))


def test_boards_that_are_not_installed(model, shards, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(BadInput, match="--wandb needs the package wandb"):
        engine.fit(tiny(), job(shards, tmp_path / "a", model, wandb="unclip"))


def test_boards_are_kept_where_there_is_no_network(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for step in (1, 2):  # resumed, it is the same run
        log = open_log(tmp_path, step - 1, "unclip", {"batch": 8})
        log.write(step, {"loss": 1.0 / step})
        log.picture(step, "samples", np.zeros((4, 8, 3), np.uint8))
        log.close()
    name = read_json(tmp_path / "wandb.json", "")["id"]
    runs = list((tmp_path / "wandb").glob("offline-run-*"))
    assert {path.name.split("-")[-1] for path in runs} == {name}
