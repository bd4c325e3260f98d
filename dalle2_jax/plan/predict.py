"""How fast a planned step will be: an estimate, with its assumptions in words."""

from typing import NamedTuple

from dalle2_jax.shard.hardware import CHIPS

SHARES = (0.35, 0.55)  # of the peak that well-tuned steps reach on matrix units
LINKS = 0.7  # of the links' bandwidth that collectives reach
DAY = 86_400


class Prediction(NamedTuple):
    """Of a run on a topology: each a pair (cautious, hopeful).

    seconds per step, images per second, days for the run's steps; send: seconds of a
    step's communication; bound: "compute" or "communication"; words: what is assumed.
    """

    seconds: tuple
    images: tuple
    days: tuple
    send: float
    bound: str
    words: str


def predict(plan):
    """Prediction of a plan, or None: for CPUs, and for steps that do not fit."""
    chip = CHIPS.get(plan.chip)
    if chip is None or plan.traffic is None:
        return None
    peak = chip.peak / chip.devices
    send = plan.traffic.total / (LINKS * chip.ici / chip.devices)
    work = [plan.flops / plan.devices / (share * peak) for share in SHARES]
    seconds = tuple(max(each, send) for each in work)
    words = (
        f"{SHARES[0]:.0%} to {SHARES[1]:.0%} of {peak / 1e12:.0f} Tflop/s bfloat16 per "
        f"device for all operations, recomputed ones included; {LINKS:.0%} of "
        f"{chip.ici / chip.devices / 1e9:.0f} GB/s between chips, hidden behind "
        "compute where that is longer; input, checkpoints and restarts not counted"
    )
    return Prediction(
        seconds,
        tuple(plan.run.batch / each for each in seconds),
        tuple(plan.run.steps * each / DAY for each in seconds),
        send,
        "communication" if send > work[-1] else "compute",
        words,
    )
