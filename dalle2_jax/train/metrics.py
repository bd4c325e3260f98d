"""What a run leaves to read: metrics.jsonl, TensorBoard events, and the clock."""

import json
import time

import jax
from tensorboardX import SummaryWriter

from dalle2_jax.files import json_lines, replacing
from dalle2_jax.shard.processes import is_first
from dalle2_jax.train.weights_and_biases import WeightsAndBiases


class MetricsFile:
    """Scalars as one JSON object per line and as TensorBoard events.

    Lines past the step that a run resumes from are dropped, so each step is there once.
    """

    def __init__(self, workdir, step):
        self.path = workdir / "metrics.jsonl"
        kept = [m for m in read_metrics(self.path) if m["step"] <= step]
        with replacing(self.path) as draft:
            draft.write_text("".join(json.dumps(m) + "\n" for m in kept))
        self.file = self.path.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(workdir / "logs"), purge_step=step + 1)

    def write(self, step, scalars):
        """scalars: {name: float}."""
        self.file.write(json.dumps({"step": step, **scalars}) + "\n")
        self.file.flush()
        for name, value in scalars.items():
            self.board.add_scalar(name, value, step)

    def picture(self, step, name, image):
        """image uint8 [y, x, 3], for TensorBoard."""
        self.board.add_image(name, image, step, dataformats="HWC")

    def close(self):
        """Flushes and closes both."""
        self.file.close()
        self.board.close()


class Logs:
    """Several logs that take the same."""

    def __init__(self, logs):
        self.logs = logs

    def write(self, step, scalars):
        """scalars: {name: float}."""
        for log in self.logs:
            log.write(step, scalars)

    def picture(self, step, name, image):
        """image uint8 [y, x, 3]."""
        for log in self.logs:
            log.picture(step, name, image)

    def close(self):
        """Closes all."""
        for log in self.logs:
            log.close()


def open_log(workdir, step, project=None, config=None):
    """Where this process writes the metrics of a run: process 0 to files, others not.

    Args:
        workdir: run directory.
        step: the one that the run resumes from.
        project: of Weights & Biases, or None.
        config: JSON-able configuration, for the latter.
    """
    if not is_first():
        return Logs([])
    online = [WeightsAndBiases(workdir, project, config)] if project else []
    return Logs([MetricsFile(workdir, step), *online])


def read_metrics(path):
    """The lines of a metrics.jsonl as dicts; a line cut short by a crash is dropped."""
    return [line for line in json_lines(path) if isinstance(line.get("step"), int)]


class Feed:
    """Host batches onto the mesh, remembering what was used and how long it waited."""

    def __init__(self, batches, put):
        self.batches, self.put = batches, put
        self.used = batches.position
        self.waited = 0.0

    def __iter__(self):
        return self

    def __next__(self):
        began = time.monotonic()
        batch = next(self.batches)
        self.used = self.batches.position
        self.waited += time.monotonic() - began
        return self.put(batch)


class Clock:
    """Phases of a run in seconds, and the rates since the last log.

    Args:
        feed: Feed.
        batch: pictures per step.
        share: Moment -> MFU of one step per second; asked after the first step.
    """

    def __init__(self, feed, batch, share=lambda moment: 0.0):
        self.feed, self.batch, self.ask, self.share = feed, batch, share, 0.0
        self.began = self.ready = self.last = time.monotonic()
        self.first = None
        self.steps = 0

    def tick(self, moment):
        """Hook of every step; the first one waits for the compiler."""
        self.steps += 1
        if self.first is None:
            jax.block_until_ready(moment.metrics)
            self.share = self.ask(moment)
            self.first = self.last = time.monotonic()
            self.steps = 0

    def rates(self):
        """Pictures/s, the share of time spent waiting for input, and the MFU.

        The MFU is of the device's matrix peak, for operations that nothing recomputes.
        """
        now = time.monotonic()
        passed = max(now - self.last, 1e-9)
        rate = {
            "images_per_second": self.steps * self.batch / passed,
            "input_wait": min(self.feed.waited / passed, 1.0),
            "mfu": self.share * self.steps / passed,
        }
        self.last, self.steps, self.feed.waited = now, 0, 0.0
        return rate

    def phases(self):
        """{"compile", "train"} in seconds, up to now."""
        first = self.first or self.began
        return {"compile": first - self.began, "train": time.monotonic() - first}


def log_hook(log, ledger, clock, show):
    """A hook that writes metrics and rates, and passes them on to `show`."""

    def call(moment):
        scalars = {**ledger.scalars(), **clock.rates()}
        log.write(moment.step, scalars)
        if show is not None:
            show(moment.step, scalars)

    return call
