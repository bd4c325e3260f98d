"""Optimizer, EMA and the update itself, on problems small enough to check by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.train.optim import decayed, ema_update, optimizer, rate_schedule
from dalle2_jax.train.run import Optim


def test_rate_rises_linearly_then_falls_along_a_cosine():
    rate = rate_schedule(Optim(rate=2.0, warmup=10, final=0.1), steps=110)
    assert float(rate(0)) == 0 and float(rate(5)) == pytest.approx(1.0)
    assert float(rate(10)) == pytest.approx(2.0)
    assert float(rate(60)) == pytest.approx(0.5 * (2.0 + 0.2))
    assert float(rate(110)) == pytest.approx(0.2)


def test_decay_spares_gains_biases_and_scalars():
    params = {
        "a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "scale": jnp.ones(2)},
        "log_scale": jnp.ones(()),
        "positions": jnp.ones((3, 2)),
    }
    assert jax.tree.leaves(decayed(params)) == [False, True, False, False, False]
    cfg = Optim(rate=0.1, decay=0.5)
    tx = optimizer(cfg, steps=10**6)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zero, tx.init(params), params)
    np.testing.assert_allclose(updates["a"]["kernel"], -0.05, rtol=1e-5)
    assert float(updates["a"]["bias"].max()) == 0


def test_clipping_bounds_what_the_moments_see():
    tx = optimizer(
        Optim(rate=1.0, clip=1.0, beta1=0.0, beta2=0.0, eps=1e3), steps=10**6
    )
    params = {"w": {"kernel": jnp.zeros((1, 4))}}
    big = {"w": {"kernel": jnp.full((1, 4), 100.0)}}
    updates, _ = tx.update(big, tx.init(params), params)
    np.testing.assert_allclose(updates["w"]["kernel"], -0.5 / (1e3 + 0.5), rtol=1e-4)


def test_a_young_average_forgets_faster():
    new, old = {"w": jnp.ones(())}, {"w": jnp.zeros(())}
    assert float(ema_update(old, new, jnp.int32(0), 0.999)["w"]) == pytest.approx(0.9)
    late = ema_update(old, new, jnp.int32(10**7), 0.999)
    assert float(late["w"]) == pytest.approx(0.001, rel=1e-3)
