"""A stage over many samples: its weights go to the devices once, and leave them again.

Chunks are as large as memory allows, found from the compiler's own account of the
stage's program; noise is keyed per sample, so that chunks change no picture.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.errors import JaxRuntimeError

from dalle2_jax.diffusion.walk import sample_keys
from dalle2_jax.shard.memory import free_bytes, program_bytes, tree_bytes
from dalle2_jax.shard.mesh import MeshConfig, batch_sharding, make_mesh, replicated

GROUP = 1024  # samples that wait on the host between two stages, about


class Fit(NamedTuple):
    """Chunks chosen from memory: at most `most` samples a device, in at most `room`.

    room: bytes of each device; None = what is free when the stage begins.
    """

    most: int = 64
    room: int | None = None


class Runner(NamedTuple):
    """Where and how works run; sample i of the run is keyed by (seed, i).

    devices: of this process. batch: most samples a program, or Fit. tell: called as
    tell(stage, samples done) after every chunk.
    """

    devices: list
    seed: int
    batch: int | Fit
    tell: Callable = lambda stage, done: None

    def layouts(self):
        """(sharding of what samples have, sharding of what all share)."""
        mesh = make_mesh(MeshConfig(), self.devices)
        return batch_sharding(mesh), replicated(mesh)

    def size(self, n):
        """Samples of a chunk: of equal chunks, a multiple of the devices."""
        count = len(self.devices)
        batch = self.batch
        most = batch.most * count if isinstance(batch, Fit) else batch
        parts = math.ceil(n / most)
        return math.ceil(n / (parts * count)) * count

    def whole(self, work, given, first, size):
        """What a work makes of n samples: a tree of host arrays [n, ...]."""
        parts = list(self.stream(work, given, first, size))
        return jax.tree.map(lambda *some: np.concatenate(some), *parts)

    def stream(self, work, given, first, size):
        """The same in parts, as they are made: trees of host arrays [<= size, ...].

        Args:
            work: Work.
            given: tree of host arrays [n, ...].
            first: number of the first sample in the run.
            size: as `size` gives it; made smaller where it does not fit.
        """
        given = jax.tree.map(np.asarray, given)
        split, shared = self.layouts()
        room = free_bytes(self.devices)
        held = jax.device_put((work.params, work.shared), shared)
        work = work._replace(params=held[0], shared=held[1])
        if isinstance(self.batch, Fit):
            size = fitting(work, given, size, self.batch.room or room, split)
        count = len(jax.tree.leaves(given)[0])
        for start in range(0, count, size):
            some = jax.tree.map(lambda x, i=start: padded(x[i : i + size], size), given)
            keys = sample_keys(self.seed, first + start, size)
            made = work(*jax.device_put((some, keys), split))
            rest = min(size, count - start)
            yield jax.tree.map(lambda x, rest=rest: np.asarray(x)[:rest], made)
            self.tell(work.stage, rest)


def fitting(work, given, size, room, split):
    """The largest chunk, at most `size`, whose program needs at most `room` bytes.

    A program that is too large says by how much, which gives the next guess; the
    smallest chunk is one sample a device.
    """
    least = split.num_devices
    while size > least:
        need = needed(work, given, size, split)
        if need <= room:
            return size
        fixed = tree_bytes((work.params, work.shared))
        share = (room - fixed) / max(need - fixed, 1) if need < math.inf else 0.5
        size = max(int(size * min(share, 0.9)) // least, 1) * least
    return size


def needed(work, given, size, split):
    """Bytes a device that a chunk of `size` samples takes; inf if it was refused."""

    def shape(x, dtype=None):
        return jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype, sharding=split)

    keys = jax.eval_shape(lambda: sample_keys(0, 0, size))
    arguments = work.params, jax.tree.map(shape, given), shape(keys)
    try:
        lowered = work.function.lower(*arguments, **work.static, **work.shared)
        return program_bytes(lowered.compile())
    except JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return math.inf


def padded(x, size):
    """x [<= size, ...] with its last row repeated to `size` rows."""
    short = size - len(x)
    return x if not short else np.concatenate([x, np.repeat(x[-1:], short, axis=0)])
