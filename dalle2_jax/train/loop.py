"""The loop: batches in, states out, hooks in between."""

import os
import signal
from typing import NamedTuple

import jax

from dalle2_jax.errors import Failed
from dalle2_jax.shard.processes import preempted


class Moment(NamedTuple):
    """What a hook sees after a step: its number, the state, metrics, the last batch."""

    step: int
    state: object
    metrics: dict
    batch: object


class Stop:
    """Somebody asked the run to stop (ctrl-C or SIGTERM, to any of its processes).

    asked: the signal, once every process is to stop; asking again changes nothing.

    Args:
        call: made when the only process is asked; ends what it may be waiting for.
    """

    def __init__(self, call=lambda: None):
        self.asked, self.interrupts, self.turns = None, 0, 0
        self.call = call

    def __enter__(self):
        self.several = jax.process_count() > 1
        calls = {signal.SIGINT: self._interrupt}
        if not self.several:  # jax.distributed listens for SIGTERM otherwise
            calls[signal.SIGTERM] = self._ask
        self.before = {s: signal.signal(s, call) for s, call in calls.items()}
        return self

    def __exit__(self, *error):
        if self.asked == signal.SIGTERM:  # asked again while leaving: no harm
            self.before[signal.SIGTERM] = signal.SIG_IGN
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def here(self):
        """Whether to stop after this turn of the loop.

        Every process asks once per turn and gets the same answer at the same turn.
        """
        self.turns += 1
        if self.several and not self.asked and preempted(self.turns):
            self.asked = signal.SIGTERM
        return self.asked is not None

    def _ask(self, number, frame):
        self.asked = number
        self.call()

    def _interrupt(self, number, frame):
        self.interrupts += 1
        if self.interrupts > 1:  # a second ctrl-C means now
            raise KeyboardInterrupt
        if self.several:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._ask(number, frame)


def train(state, step, batches, hooks, steps, stop):
    """Runs `step` until `steps` updates are done or a stop is asked for.

    Args:
        state: TrainState; its own step says where to begin.
        step: (state, batch) -> (state, metrics).
        batches: iterator of device batches.
        hooks: list of (every, call); call(Moment) runs when every divides the step.
        steps: updates in all.
        stop: Stop.

    Returns:
        The last state.
    """
    for n in range(int(state.step) + 1, steps + 1):
        try:
            batch = next(batches)
        except Failed:
            if stop.asked is None:
                raise
            break  # the read that was waited for was given up, as `stop` is asked for
        state, metrics = step(state, batch)
        for every, call in hooks:
            if n % every == 0:
                call(Moment(n, state, metrics, batch))
        if stop.here():
            break
    return state
