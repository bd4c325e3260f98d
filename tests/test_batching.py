"""Chunks: how large, how often compiled, and that they change nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax import batching
from dalle2_jax.batching import Fit, Runner
from dalle2_jax.cascade import Work
from dalle2_jax.shard.memory import free_bytes

GIVEN = np.arange(40, dtype=np.float32).reshape(20, 2)
MEGABYTE = 1 << 20


@functools.partial(jax.jit, static_argnames="width")
def wide(params, given, keys, *, width):
    """A row of normal numbers per sample, sorted: `width` floats twice in memory."""
    row = jax.vmap(lambda key: jax.random.normal(key, (width,)))(keys)
    return jnp.sort(row + params, axis=-1)[:, :2] + given


def drawn(batch, width=1 << 16, devices=None, tell=lambda *made: None):
    runner = Runner(devices or jax.devices()[:1], 5, batch, tell)
    work = Work("stage", wide, np.zeros(1, "f"), {"width": width})
    return runner.whole(work, GIVEN, 3, runner.size(len(GIVEN)))


def test_chunks_and_devices_change_no_sample():
    whole = drawn(20)
    assert whole.shape == (20, 2) and not np.array_equal(whole[0], whole[1] - 2)
    for batch, devices in (
        (7, jax.devices()[:1]),
        (1, jax.devices()),
        (20, jax.devices()),
    ):
        np.testing.assert_array_equal(drawn(batch, devices=devices), whole)


def test_chunks_are_as_large_as_memory_allows(monkeypatch):
    fitting, sizes, done = batching.fitting, [], []

    def spy(*given):
        sizes.append(fitting(*given))
        return sizes[-1]

    monkeypatch.setattr(batching, "fitting", spy)
    plenty = drawn(Fit(room=1 << 40))
    little = drawn(Fit(room=3 * MEGABYTE), tell=lambda stage, n: done.append(n))
    assert sizes[0] == 20 and 1 < sizes[1] <= 6  # half a megabyte each, at least
    assert sum(done) == 20 and done[0] == sizes[1]
    np.testing.assert_array_equal(plenty, little)
    drawn(Fit(room=1))
    assert sizes[2] == 1  # never less than a sample a device


def test_a_program_that_memory_was_measured_for_is_compiled_once():
    compiled = []

    def listen(name, seconds, **more):
        compiled.append(name) if name.endswith("backend_compile_duration") else None

    drawn(10)
    jax.monitoring.register_event_duration_secs_listener(listen)
    drawn(Fit(), width=77)
    first = len(compiled)
    drawn(20, width=77)
    assert first and len(compiled) == first


def test_what_the_compiler_refuses_is_halved(monkeypatch):
    from jax.errors import JaxRuntimeError

    def refuse(program):
        if program.size > 4:
            raise JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return 0

    class Lowered:
        def __init__(self, keys):
            self.size = keys.shape[0]

        def compile(self):
            return self

    class Function:
        def lower(self, params, given, keys):
            return Lowered(keys)

    monkeypatch.setattr(batching, "program_bytes", refuse)
    work = Work("stage", Function(), np.zeros(1), {})
    split, _ = Runner(jax.devices()[:1], 0, Fit()).layouts()
    assert batching.fitting(work, GIVEN, 20, 100, split) in (2, 3, 4)


def test_other_errors_of_the_compiler_are_told():
    work = Work("stage", wide, np.zeros(3, "f"), {"width": 8})  # does not broadcast
    split, _ = Runner(jax.devices()[:1], 0, Fit()).layouts()
    with pytest.raises((TypeError, ValueError)):
        batching.fitting(work, GIVEN, 20, 100, split)


def test_devices_without_memory_of_their_own_share_the_machines():
    one, eight = free_bytes(jax.devices()[:1]), free_bytes(jax.devices())
    assert one > 100 * MEGABYTE and 6 < one / eight < 10
