"""What is kept changes what is computed again, and no gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.layers.init import init_params
from dalle2_jax.layers.recompute import POLICIES, keeping
from dalle2_jax.layers.unet import UNet, UNetConfig
from dalle2_jax.shard.flops import flops_of

CFG = UNetConfig(8, (1, 2), 1, (2,), head_width=8, groups=4)
X, T = jax.random.normal(jax.random.key(0), (2, 8, 8, 3)), jnp.array([3, 700])


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda p: p + 0.02, init_params(UNet(CFG), 0, X, T))


def gradient(remat):
    cfg = dataclasses.replace(CFG, remat=remat)
    return jax.grad(lambda p: jnp.sum(UNet(cfg).apply({"params": p}, X, T) ** 2))


@pytest.mark.parametrize("policy", POLICIES)
def test_no_policy_changes_a_gradient(params, policy):
    with keeping(policy):
        again = jax.jit(gradient(True))(params)
    plain = jax.jit(gradient(False))(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-4), again, plain
    )


def test_what_keeps_more_computes_less_again(params):
    counts = {}
    for policy in POLICIES:
        with keeping(policy):
            counts[policy] = flops_of(gradient(True), params)
    plain = flops_of(gradient(False), params)
    assert plain < counts["products"] < counts["nothing"] < 1.4 * plain
    assert counts["products"] - plain < (counts["nothing"] - plain) / 2
