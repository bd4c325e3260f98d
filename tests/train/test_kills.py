"""kill -9 at any moment: the run ends bit-identical to one that was left alone."""

import functools
import random
import signal

import pytest
from launched import alone, digest_line, ended, finished, train_words, wait_until

from dalle2_jax.train.metrics import read_metrics
from dalle2_jax.train.verify import steps_of


def killed(shards, folder, steps, kills, seed):
    """Runs to the end, killed so many times; how many of them fell into a save."""
    rng = random.Random(seed)
    words = train_words(shards, folder, f"steps={steps}")
    inside = 0
    for kill in range(kills):
        run = alone(words)
        moment = within_save if rng.random() < 0.5 else past_commit
        here = functools.partial(moment, folder, told(folder))
        assert wait_until(here, run), f"it ended before kill {kill}: {ended(run)[1]}"
        inside += moment is within_save
        run.send_signal(signal.SIGKILL)
        assert ended(run)[0] == -signal.SIGKILL
    finished(alone(words))
    return inside


def told(folder):
    """The steps that metrics.jsonl tells of."""
    return [m["step"] for m in read_metrics(folder / "metrics.jsonl")]


def past_commit(folder, before):
    """Whether this life has done a step that is in no checkpoint yet."""
    now = told(folder)
    return now != before and max(now, default=0) > max(steps_of(folder), default=0)


def within_save(folder, before):
    """Whether this life is writing a checkpoint."""
    drafts = (folder / "checkpoints").glob("*.orbax-checkpoint-tmp*")
    return told(folder) != before and any(drafts)


def compare(shards, tmp_path, capsys, steps, kills):
    finished(alone(train_words(shards, tmp_path / "whole", f"steps={steps}")))
    inside = killed(shards, tmp_path / "parts", steps, kills, seed=kills)
    whole, parts = (digest_line(tmp_path / name, capsys) for name in ("whole", "parts"))
    assert whole == parts
    ours, theirs = (
        [
            (m["step"], m["loss"])
            for m in read_metrics(tmp_path / name / "metrics.jsonl")
        ]
        for name in ("whole", "parts")
    )
    assert ours == theirs and [step for step, _ in ours] == [*range(1, steps + 1)]
    return inside


def test_three_kills_leave_no_trace(shards, tmp_path, capsys):
    assert compare(shards, tmp_path, capsys, steps=40, kills=3)


@pytest.mark.slow
def test_twenty_kills_leave_no_trace(shards, tmp_path, capsys):
    assert compare(shards, tmp_path, capsys, steps=200, kills=20) >= 5
