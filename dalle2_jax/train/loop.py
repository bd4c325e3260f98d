"""The loop: batches in, states out, hooks in between."""

import signal
from typing import NamedTuple


class Moment(NamedTuple):
    """What a hook sees after a step: its number, the state, metrics, the last batch."""

    step: int
    state: object
    metrics: dict
    batch: object


class Stop:
    """Remembers that somebody asked the run to stop (ctrl-C or SIGTERM)."""

    def __init__(self):
        self.asked = None

    def __enter__(self):
        signals = (signal.SIGINT, signal.SIGTERM)
        self.before = {s: signal.signal(s, self._ask) for s in signals}
        return self

    def __exit__(self, *error):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number, frame):
        if self.asked == signal.SIGINT == number:  # a second ctrl-C means now
            raise KeyboardInterrupt
        self.asked = number


def train(state, step, batches, hooks, steps, stop):
    """Runs `step` until `steps` updates are done or a stop is asked for.

    Args:
        state: TrainState; its own step says where to begin.
        step: (state, batch) -> (state, metrics).
        batches: iterator of device batches.
        hooks: list of (every, call); call(Moment) runs when every divides the step.
        steps: updates in all.
        stop: object with `asked`, looked at after each step.

    Returns:
        The last state.
    """
    for n in range(int(state.step) + 1, steps + 1):
        batch = next(batches)
        state, metrics = step(state, batch)
        for every, call in hooks:
            if n % every == 0:
                call(Moment(n, state, metrics, batch))
        if stop.asked:
            break
    return state
