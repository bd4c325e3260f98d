"""A profile of some steps: WORKDIR/profile, for Perfetto or xprof."""

import jax

from dalle2_jax.shard.processes import is_first


class Trace:
    """Writes what jax.profiler sees of the steps first..last.

    Args:
        folder: where; made when absent.
        first, last: numbers of steps, or None for no profile.
        step: the step that is done before the loop begins.
    """

    def __init__(self, folder, steps, step):
        self.folder, self.on = folder, False
        self.first, self.last = steps or (None, None)
        self._begin_before(step + 1)

    def tick(self, moment):
        """Hook of every step; waits for the devices at both ends of the profile."""
        if self.on and moment.step >= self.last:
            jax.block_until_ready(moment.metrics)
            self.close()
        if moment.step + 1 == self.first:
            jax.block_until_ready(moment.metrics)
            self._begin_before(moment.step + 1)

    def close(self):
        """Ends a profile that has begun."""
        if self.on:
            jax.profiler.stop_trace()
        self.on = False

    def _begin_before(self, step):
        if step == self.first and is_first():
            jax.profiler.start_trace(str(self.folder))
            self.on = True
