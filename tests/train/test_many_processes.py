"""Several processes: the run of one process, on any number of them, whoever dies."""

import os
import shutil
import signal

import numpy as np
import pytest
from launched import (
    children,
    digest_line,
    ended,
    finished,
    together,
    train_words,
    wait_until,
)

from dalle2_jax.cli.overrides import load_run
from dalle2_jax.components import flatten, load_component
from dalle2_jax.train.fit import Job, fit
from dalle2_jax.train.metrics import read_metrics

STEPS = 24


def words(shards, workdir):
    return train_words(shards, workdir, f"steps={STEPS}")


@pytest.fixture(scope="module")
def one(tmp_path_factory, shards):
    """The run directory of one process with eight devices."""
    folder = tmp_path_factory.mktemp("one") / "run"
    changes = [word for word in words(shards, folder) if word.startswith("--config.")]
    run = load_run("configs/clip.py:small", changes)
    fit(run, Job([str(path) for path in shards], folder, folder / "model"))
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory, shards):
    """The run directory of two processes with two devices each."""
    folder = tmp_path_factory.mktemp("two") / "run"
    finished(together(2, 2, words(shards, folder)))
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory, shards):
    """What two processes leave when one of them is killed after a commit."""
    folder = tmp_path_factory.mktemp("broken") / "run"
    run = together(2, 2, words(shards, folder))
    assert wait_until((folder / "checkpoints" / "2").exists, run)
    os.kill(children(run)[1], signal.SIGKILL)
    code, output = ended(run)
    assert code == 128 + signal.SIGKILL, output
    assert not (folder / "model" / "clip").exists()
    return folder


def assert_same_run(a, b):
    """The same losses at the same steps, and the same parameters but for rounding."""
    ours, theirs = (read_metrics(folder / "metrics.jsonl") for folder in (a, b))
    assert [m["step"] for m in ours] == [m["step"] for m in theirs]
    losses = ([m["loss"] for m in metrics] for metrics in (ours, theirs))
    np.testing.assert_allclose(*losses, rtol=1e-4)
    ours, theirs = (
        flatten(load_component(folder / "model", "clip").params) for folder in (a, b)
    )
    for name, leaf in ours.items():
        np.testing.assert_allclose(leaf, theirs[name], atol=2e-4, err_msg=name)


def test_two_processes_train_as_one(one, two):
    assert_same_run(one, two)


@pytest.mark.slow
def test_four_processes_train_as_one(one, tmp_path, shards):
    finished(together(4, 2, words(shards, tmp_path / "run")))
    assert_same_run(one, tmp_path / "run")


def test_sigterm_to_one_stops_both_at_the_same_step(two, tmp_path, shards, capsys):
    folder = tmp_path / "run"
    run = together(2, 2, words(shards, folder))
    assert wait_until((folder / "config.json").exists, run)
    pid = children(run)[1]
    for _ in range(2):
        os.kill(pid, signal.SIGTERM)
    code, output = ended(run)
    assert code == 75, output
    said = [line.split("]")[1] for line in output.splitlines() if "stopped at" in line]
    assert len(said) == 2 and len(set(said)) == 1, output
    finished(together(2, 2, words(shards, folder)))
    assert digest_line(folder, capsys) == digest_line(two, capsys)
    assert_same_run(two, folder)


def test_one_is_killed_and_two_go_on_bit_for_bit(broken, two, tmp_path, shards, capsys):
    shutil.copytree(broken, tmp_path / "run")
    finished(together(2, 2, words(shards, tmp_path / "run")))
    assert digest_line(tmp_path / "run", capsys) == digest_line(two, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 4])
def test_one_is_killed_and_others_go_on(broken, two, tmp_path, shards, processes):
    shutil.copytree(broken, tmp_path / "run")
    finished(together(processes, 2, words(shards, tmp_path / "run")))
    assert_same_run(two, tmp_path / "run")
