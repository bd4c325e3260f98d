"""Probes find what is linearly there, and only that."""

import numpy as np

from dalle2_jax.evaluate.linear_probe import probe_accuracy


def test_a_probe_finds_what_is_there_and_not_what_is_not():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 6))
    labels = {
        "sign": np.where(x[:, 0] + x[:, 1] > 0, "up", "down"),
        "coin": rng.choice(["a", "b"], size=900),
    }
    test = {k: v[600:] for k, v in labels.items()}
    fit = {k: v[:600] for k, v in labels.items()}
    found = probe_accuracy(x[:600], fit, {"new": (x[600:], test)})
    assert found["sign"]["new"] > 0.95
    assert 0.35 < found["coin"]["new"] < 0.65
