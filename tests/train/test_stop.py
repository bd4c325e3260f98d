"""A stop that is asked for while the loop waits for its input."""

import os
import signal
from types import SimpleNamespace

import pytest

from dalle2_jax.errors import Failed
from dalle2_jax.train.loop import Stop, train


@pytest.fixture(autouse=True)
def handlers():
    """A process that was told to stop would not listen again; pytest goes on."""
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run(batches, stop):
    return train(
        SimpleNamespace(step=0),
        lambda state, batch: (SimpleNamespace(step=state.step + 1), {}),
        batches,
        [],
        9,
        stop,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_read_given_up_for_a_stop_ends_the_loop_with_what_it_has(number):
    given_up = []

    def batches():
        yield "a batch"
        os.kill(os.getpid(), number)
        assert given_up == [True]
        raise Failed("told to stop")

    with Stop(lambda: given_up.append(True)) as stop:
        assert run(batches(), stop).step == 1
    assert stop.asked == number


def test_a_store_that_fails_by_itself_fails_the_run():
    def batches():
        raise Failed("503")
        yield

    with Stop() as stop, pytest.raises(Failed, match="503"):
        run(batches(), stop)
