"""The compiled program of every stage: what it needs, and how long it takes."""

import resource
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from dalle2_jax.cascade import Asked, cascade
from dalle2_jax.diffusion.walk import sample_keys
from dalle2_jax.shard.memory import program_bytes, tree_bytes


class Program(NamedTuple):
    """A stage compiled for one batch.

    call: compiled, (params, given, keys, **shared). weights, temporaries, needs: bytes
    on the device; needs is all of it, arguments and output included.
    """

    stage: str
    samples: int
    parameters: int
    weights: int
    temporaries: int
    needs: int
    compile_s: float
    call: Any
    work: Any
    given: Any

    def told(self):
        """What of it is a figure, JSON-able."""
        names = self._fields[: self._fields.index("call")]
        return {name: getattr(self, name) for name in names}


def programs(model, batch, context, how):
    """Program of every stage of a model, in order.

    Args:
        model: UnCLIP, whose weights may be ShapeDtypeStructs.
        batch: samples at a time.
        context: tokens of a caption.
        how: {stage: Sampling}; a stage not named uses its own.
    """
    found = []

    def run(work, given):
        lowered = lower(work, given)
        found.append(compiled(work, given, lowered))
        return invented(lowered.out_info)

    tokens = np.ones((batch, context), np.int32)
    run(*cascade(model, Asked(tokens, tokens[:1]), run, how))
    return found


def lower(work, given):
    """A Work lowered for what it is given."""
    keys = sample_keys(0, 0, len(jax.tree.leaves(given)[0]))
    function = work.function
    return function.lower(work.params, given, keys, **work.static, **work.shared)


def compiled(work, given, lowered):
    """The Program of a lowered Work."""
    began = time.perf_counter()
    call = lowered.compile()
    taken = time.perf_counter() - began
    networks = work.params, work.shared.get("last", ())
    return Program(
        stage=work.stage,
        samples=len(jax.tree.leaves(given)[0]),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(networks)),
        weights=tree_bytes(networks),
        temporaries=call.memory_analysis().temp_size_in_bytes,
        needs=program_bytes(call),
        compile_s=taken,
        call=call,
        work=work,
        given=given,
    )


def invented(shapes):
    """Arrays of given shapes: normal numbers, ones for whole numbers and truth."""
    rng = np.random.default_rng(0)

    def one(shape):
        if np.issubdtype(shape.dtype, np.floating):
            return rng.standard_normal(shape.shape).astype(shape.dtype)
        return np.ones(shape.shape, shape.dtype)

    return jax.tree.map(one, shapes)


def runner_of(program):
    """A function that runs the program once and waits for it; weights stay put."""
    work = program.work
    keys = sample_keys(0, 0, program.samples)
    held = jax.device_put((work.params, program.given, keys, work.shared))
    params, given, keys, shared = held

    def once():
        return jax.block_until_ready(program.call(params, given, keys, **shared))

    return once


class Taken(NamedTuple):
    """Seconds of one call: on the clock, and of all threads of this process."""

    wall: float
    cpu: float


def rounds(calls, count):
    """What each of some functions takes, called in turn `count` times.

    Args:
        calls: {name: function}; each is called once more in front, not timed. The order
            turns round after every round, so that none always follows the same other.

    Returns:
        {name: [Taken]}.
    """
    names, taken = list(calls), {name: [] for name in calls}
    for number in range(count + 1):
        for name in names[:: 1 if number % 2 else -1]:
            began = time.perf_counter(), time.process_time()
            calls[name]()
            ended = time.perf_counter(), time.process_time()
            if number:
                taken[name].append(Taken(ended[0] - began[0], ended[1] - began[1]))
    return taken


def peak_bytes():
    """(bytes at most in use so far, of what): a device's, or this process's."""
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"], "device"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "process"
