"""A run that has ended, or has not, goes on to another number of steps."""

import jax
import numpy as np
import pytest
from tiny import home_in, job_of, run_of

from dalle2_jax.components import load_component, read_json
from dalle2_jax.errors import BadInput
from dalle2_jax.train.fit import fit
from dalle2_jax.train.metrics import read_metrics


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return home_in(tmp_path_factory.mktemp("home"))


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def finished(job):
    return load_component(job.model, "upsampler")


def test_at_a_constant_rate_longer_is_as_if_it_had_always_been(home, tmp_path):
    whole, parts = job_of(home, tmp_path / "whole"), job_of(home, tmp_path / "parts")
    fit(run_of("steps=5"), whole)
    fit(run_of("steps=3"), parts)
    assert finished(parts).config["steps"] == 3
    fit(run_of("steps=5"), parts)
    equal(finished(whole).params, finished(parts).params)
    assert read_json(parts.workdir / "config.json", "")["steps"] == 5
    assert finished(parts).config["steps"] == 5
    lines = read_metrics(parts.workdir / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]


def test_a_rate_that_falls_jumps_and_that_is_said(home, tmp_path, caplog):
    falling = "optim.final=0.1"
    twice = []
    for name in ("a", "b"):
        job = job_of(home, tmp_path / name)
        fit(run_of("steps=3", falling), job)
        caplog.clear()
        fit(run_of("steps=4", falling), job)
        said = [r.getMessage() for r in caplog.records if "config.steps" in r.msg]
        assert len(said) == 1 and "learning rate" in said[0] and " 4" in said[0]
        twice.append(finished(job).params)
    equal(*twice)


def test_what_has_been_reached_stays(home, tmp_path):
    job = job_of(home, tmp_path / "run")
    fit(run_of("steps=4"), job)
    before = (job.workdir / "config.json").read_bytes()
    with pytest.raises(BadInput, match="config.steps is 3.*reached step 4"):
        fit(run_of("steps=3"), job)
    with pytest.raises(BadInput, match="another config.batch"):
        fit(run_of("steps=6", "batch=16"), job)
    assert (job.workdir / "config.json").read_bytes() == before
