"""The scanned stack: the same as its blocks one after another, and causal."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.layers.attention import causal
from dalle2_jax.layers.init import init_params
from dalle2_jax.layers.transformer import (
    UNROLLED,
    Block,
    LayerNorm,
    TransformerConfig,
    transformer,
)


class Stack(nn.Module):
    cfg: TransformerConfig

    @nn.compact
    def __call__(self, x, mask):
        return transformer(self.cfg, x, mask)


CFG = TransformerConfig(16, UNROLLED + 1, 2)
X = jax.random.normal(jax.random.key(0), (2, 4, 16))
LOOK = causal(4)
PARAMS = init_params(Stack(CFG), 0, X, LOOK)


@pytest.mark.parametrize("depth", [2, UNROLLED + 1])
def test_stack_is_its_blocks_in_order(depth):
    cfg = dataclasses.replace(CFG, depth=depth)
    params = init_params(Stack(cfg), 0, X, LOOK)
    y = X
    for i in range(depth):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"])
        y, _ = Block(cfg).apply({"params": layer}, y, LOOK)
    out = Stack(cfg).apply({"params": params}, X, LOOK)
    np.testing.assert_allclose(out, y, atol=1e-5)


def test_rematerialisation_changes_no_gradient():
    def grad(cfg):
        def loss(p):
            return jnp.sum(Stack(cfg).apply({"params": p}, X, LOOK) ** 2)

        return jax.grad(loss)(PARAMS)

    again = grad(dataclasses.replace(CFG, remat=True))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-4), grad(CFG), again
    )


def test_no_token_hears_a_later_one():
    def third(x):
        return Stack(CFG).apply({"params": PARAMS}, x, LOOK)[:, 2].sum()

    pull = jax.grad(third)(X)
    assert jnp.all(pull[:, 3:] == 0)
    assert jnp.all(jnp.any(pull[:, :3] != 0, axis=-1))


def test_layer_norm_leaves_mean_0_and_variance_1():
    x = 5 + 3 * X
    y = LayerNorm().apply({"params": {"scale": jnp.ones(16), "bias": jnp.zeros(16)}}, x)
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(-1), 1, atol=1e-4)


def test_heads_must_divide_width():
    with pytest.raises(AssertionError, match="heads must divide width"):
        TransformerConfig(16, 1, 3)
