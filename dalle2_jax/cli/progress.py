"""One progress display over all stages of a command."""

import time

from rich import progress
from rich.console import Console

QUIET = 10.0  # seconds between lines where the output is no terminal
NAMES = {
    "loss": "loss {:.4g}",
    "explained": "explained {:.4g}",  # the autoregressive prior's components and codes
    "lost": "lost {:.4g}",
    "images_per_second": "images/s {:.4g}",
    "input_wait": "wait {:.0%}",
    "mfu": "MFU {:.1%}",
    "doing": "{}",  # a stage of sampling, and its samples so far
    "skipped": "skipped {:.0f}",  # steps passed over so far
}


class Progress:
    """Bars on a terminal, a line now and then elsewhere.

    Args:
        stages: list of (name, steps).
    """

    def __init__(self, stages):
        self.console = Console()
        self.steps = dict(stages)
        self.live = self.console.is_terminal
        columns = ("{task.description:<12}", "{task.fields[note]}")
        self.bars = progress.Progress(
            progress.TextColumn(columns[0]),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn(columns[1]),
            console=self.console,
            disable=not self.live,
        )
        self.stage, self.began, self.spoke = None, 0.0, 0.0
        self.tasks = {}

    def __enter__(self):
        self.bars.__enter__()
        for name, steps in self.steps.items():
            task = self.bars.add_task(name, total=steps, note="", start=False)
            self.tasks[name] = task
        return self

    def __exit__(self, *error):
        self.bars.__exit__(*error)

    def begin(self, stage):
        """The next calls of `show` speak of this stage."""
        self.stage, self.began, self.first = stage, time.monotonic(), None
        self.bars.start_task(self.tasks[stage])
        if not self.live:
            print(f"{stage}: {self.steps[stage]} steps", flush=True)

    def show(self, step, metrics):
        """One log of the training loop: its step and scalars."""
        parts = [
            text.format(metrics[name])
            for name, text in NAMES.items()
            if name in metrics and (metrics[name] or name != "skipped")
        ]
        note, now = "  ".join(parts), time.monotonic()
        self.bars.update(self.tasks[self.stage], completed=step, note=note)
        self.first = self.first or (step, now)
        if not self.live and now - self.spoke > QUIET:
            self.spoke = now
            done, total = step - self.first[0], self.steps[self.stage]
            left = (now - self.first[1]) / done * (total - step) if done else None
            eta = f"{left:.0f} s left" if left is not None else "..."
            print(f"  {self.stage} {step}/{total}  {note}  {eta}", flush=True)

    def finish(self, stage):
        """Marks a stage as done."""
        self.bars.update(self.tasks[stage], completed=self.steps[stage])

    def say(self, text):
        """A line above the bars."""
        self.console.print(text, highlight=False)
