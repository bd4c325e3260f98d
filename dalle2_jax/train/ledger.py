"""What every step reported, read on the host one step late so that no device waits.

Skipped steps are written to WORKDIR/skipped_steps.jsonl, one object each: the step, the
data positions before and after its batch, its loss and gradient norm, and the diffusion
steps drawn for its examples. A return to an older checkpoint is a line there, too.
"""

import collections
import json
import os
from typing import NamedTuple

import jax
import numpy as np

from dalle2_jax.errors import Failed
from dalle2_jax.files import json_lines
from dalle2_jax.shard.processes import is_first

QUARTERS = 4
FILE = "skipped_steps.jsonl"


class Astray(Exception):
    """Too many steps were bad; `first` is the first of them."""

    def __init__(self, first):
        super().__init__(f"step {first} was the first of too many bad ones")
        self.first = first


class Note(NamedTuple):
    """A step's number, the data positions around its batch, and its metrics."""

    step: int
    before: object
    after: object
    metrics: dict


class Ledger:
    """Follows the metrics of a run.

    Args:
        feed: Feed; its `used` is the data position.
        run: Run.
        workdir: where skipped steps are written.
    """

    def __init__(self, feed, run, workdir):
        self.feed, self.guard, self.workdir = feed, run.guard, workdir
        self.times = run.noise.steps if run.noise else 0
        self.position, self.pending, self.last = feed.used, None, {}
        self.bad = collections.deque()
        self.sums = np.zeros((2, QUARTERS))

    def note(self, moment):
        """Hook of every step: takes its metrics, looks at those of the step before."""
        self.settle()
        self.pending = Note(moment.step, self.position, self.feed.used, moment.metrics)
        self.position = self.feed.used

    def settle(self):
        """Waits for the newest step and judges it.

        Raises:
            Astray: too many steps were bad and the guard says to go back.
            Failed: too many were, and it says to stop.
        """
        note, self.pending = self.pending, None
        if note is None:
            return
        self.last = jax.device_get(note.metrics)
        if self.last["bad"]:
            self._skipped(note)
        elif "times" in self.last:
            self.sums += by_quarter(self.last["losses"], self.last["times"], self.times)

    def scalars(self):
        """Scalars of the newest step, and losses by quarter since they were last asked.

        loss_q0 is the mean over the examples whose step was in the first quarter of the
        chain, near x_0; loss_q3 in the last. What is not finite is left out.
        """
        self.settle()
        found = {k: float(v) for k, v in self.last.items() if not np.ndim(v)}
        found.pop("bad", None)
        total, count = self.sums
        self.sums = np.zeros_like(self.sums)
        found |= {f"loss_q{i}": total[i] / count[i] for i in np.flatnonzero(count)}
        return {name: value for name, value in found.items() if np.isfinite(value)}

    def _skipped(self, note):
        keep = ("loss", "grad_norm")
        line = {name: float(self.last[name]) for name in keep}
        line = {k: v if np.isfinite(v) else str(v) for k, v in line.items()}
        if "times" in self.last:
            line["times"] = self.last["times"].tolist()
        place = {"step": note.step, "data_from": note.before, "data_to": note.after}
        append(self.workdir, {**place, **line})
        self.bad.append(note.step)
        while self.bad[0] <= note.step - self.guard.window:
            self.bad.popleft()
        if self.guard.most and len(self.bad) >= self.guard.most:
            self._enough(note.step)

    def _enough(self, step):
        if self.guard.then == "rollback":
            raise Astray(self.bad[0])
        raise Failed(
            f"{len(self.bad)} of the last {self.guard.window} steps up to {step} were "
            f"passed over, their loss not finite or their gradient too large: see "
            f"{self.workdir / FILE}; lower config.optim.rate, mend the data, or change "
            "config.guard, and run the same command again to go on."
        )


def by_quarter(losses, times, steps):
    """Sums of losses and numbers of examples by quarter of the chain, float64 [2, 4].

    losses float [b]; times int [b] in 0..steps-1.
    """
    quarter = np.asarray(times) * QUARTERS // steps
    kinds = (np.asarray(losses, np.float64), None)
    return np.stack([np.bincount(quarter, kind, QUARTERS) for kind in kinds])


def append(workdir, line):
    """Adds one object to the file of skipped steps; process 0 does."""
    if is_first():
        with (workdir / FILE).open("ab+") as file:
            if file.tell():  # a line that a crash cut short has no end
                file.seek(-1, os.SEEK_END)
            cut = file.read(1) not in (b"", b"\n")
            file.write(f"{chr(10) * cut}{json.dumps(line)}\n".encode())


def returns(workdir):
    """The lines that tell of returns: [{"rollback": step, "position": ...}, ...]."""
    return [line for line in json_lines(workdir / FILE) if "rollback" in line]


def position_at(workdir, step, position):
    """Where the data goes on from a checkpoint: past what a return to it left out.

    step: the checkpoint's; position: the data position that was saved in it.
    """
    found = returns(workdir)
    gone_on = found and found[-1]["rollback"] == step
    return found[-1]["position"] if gone_on else position
