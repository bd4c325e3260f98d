"""evaluate on several processes, and after a stop: the numbers of one, undisturbed."""

import json
import os
import signal

import pytest
from launched import DALLE2, alone, ended, finished, started, together, wait_until

from dalle2_jax.errors import Failed
from dalle2_jax.evaluate.collect import done, gathered

N = 90  # pictures, the last unit not whole


@pytest.fixture(scope="module")
def words(folder, shards):
    given = ["evaluate", "--model", folder, "--data", *shards, "--n", N, "--unit", 4]
    given += ["--metrics", "fid,kid,clip_score,cmmd", "--batch", 8]
    return [str(word) for word in given]


@pytest.fixture(scope="module")
def one(words, tmp_path_factory):
    """The numbers of one process with one device."""
    out = tmp_path_factory.mktemp("one") / "scores.json"
    finished(alone([*words, "--out", str(out)], devices=1))
    return scores(out)


def scores(path):
    return json.loads(path.read_text())["scores"]


def assert_same(ours, theirs):
    for name, found in ours.items():
        assert found["value"] == pytest.approx(theirs[name]["value"], rel=1e-9), name
        assert found["samples"]["sha256"] == theirs[name]["samples"]["sha256"]


def test_two_processes_find_the_same(words, one, tmp_path):
    out = tmp_path / "scores.json"
    finished(together(2, 1, [*words, "--out", str(out)]))
    assert_same(scores(out), one)


@pytest.mark.slow
@pytest.mark.parametrize("processes, devices", [(4, 1), (2, 2), (1, 8)])
def test_more_processes_and_devices_find_the_same(
    words, one, tmp_path, processes, devices
):
    out = tmp_path / "scores.json"
    finished(together(processes, devices, [*words, "--out", str(out)]))
    assert_same(scores(out), one)


@pytest.mark.parametrize(
    "number, code",
    [
        (signal.SIGTERM, 75),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_stopped_it_goes_on(words, one, tmp_path, number, code):
    out, work = tmp_path / "scores.json", tmp_path / "work"
    call = [*words, "--out", str(out), "--work", str(work)]
    run = started([*DALLE2, *call])
    assert wait_until(lambda: len(list((work / "samples").glob("0*"))) > 1, run)
    os.kill(run.pid, number)
    assert ended(run)[0] == code
    assert not out.exists()
    kept = {path: path.stat().st_mtime_ns for path in work.rglob("0*.npz")}
    finished(together(2, 1, call))
    assert_same(scores(out), one)
    assert kept and all(path.stat().st_mtime_ns == kept[path] for path in kept)


def test_work_of_other_settings_is_refused(words, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / "settings.json").write_text("{}")
    code, output = ended(started([*DALLE2, *words, "--work", str(work)]))
    assert code == 2 and "holds parts of an evaluation with another metrics" in output


def test_a_folder_that_is_not_shared_is_noticed(tmp_path):
    assert done(tmp_path) == {}
    with pytest.raises(Failed, match="lacks unit 0 of 3: all processes must see"):
        gathered(tmp_path, 3)
