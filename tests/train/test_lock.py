"""Two runs in one directory: the second is refused while the first lives."""

import json
import os
import signal

import pytest
from tiny import home_in, job_of, run_of

from dalle2_jax.data.write_shapes import make_shapes
from dalle2_jax.errors import BadInput, Failed, Preempted
from dalle2_jax.files import LOCK, Lock, myself
from dalle2_jax.train.fit import fit
from dalle2_jax.train.verify import steps_of


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return home_in(tmp_path_factory.mktemp("home"))


def test_a_second_run_is_refused_and_the_first_goes_on(home, tmp_path):
    job = job_of(home, tmp_path / "run")
    refused = []

    def second(step, metrics):
        with pytest.raises(BadInput, match=f"process {os.getpid()} on ") as error:
            fit(run_of(), job)
        refused.append(error)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted):
        fit(run_of(), job, second)
    assert len(refused) == 3 and not (job.workdir / LOCK).exists()
    fit(run_of(), job)
    assert max(steps_of(job.workdir)) == 4 and not (job.workdir / LOCK).exists()


def test_a_dead_run_leaves_no_lock_behind(home, tmp_path):
    job = job_of(home, tmp_path / "run")
    job.workdir.mkdir()
    dead = {**myself(), "started": "1", "token": "x"}
    (job.workdir / LOCK).write_text(json.dumps(dead))
    fit(run_of("steps=1"), job)
    with pytest.raises(BadInput, match="config.batch"):
        fit(run_of("steps=1", "batch=16"), job)
    assert not (job.workdir / LOCK).exists()


def test_a_run_that_has_lost_its_directory_stops_before_it_writes(home, tmp_path):
    job = job_of(home, tmp_path / "run")

    def taken(step, metrics):
        if step == 2:
            (job.workdir / LOCK).write_text(json.dumps({**myself(), "token": "y"}))

    lost = pytest.raises(Failed, match="no longer this process's own")
    with pytest.MonkeyPatch.context() as patch, lost:
        patch.setattr("dalle2_jax.files.BEAT", 0.001)
        fit(run_of("steps=100000", "save_every=100000"), job, taken)
    assert not steps_of(job.workdir)


def test_quickstart_and_embeddings_own_their_folders(tmp_path, folder, capsys):
    from dalle2_jax.cli.main import main

    out = tmp_path / "q"
    words = ["quickstart", "--minutes", "0.1", "--out", str(out)]
    with Lock(out, "x"):
        assert main(words) == 2
    assert f"process {os.getpid()}" in capsys.readouterr().err
    to, shards = tmp_path / "emb", make_shapes("simple", 8, 0, tmp_path / "s", 16, 8)
    words = ["data", "embed", "--model", str(folder), "--to", str(to), "--data"]
    with Lock(to, "x", ".lock-0-of-1"):
        assert main([*words, str(shards[0])]) == 2
    assert f"process {os.getpid()}" in capsys.readouterr().err
