"""The residual block and its parts, each against what it stands for."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.layers.init import init_params
from dalle2_jax.layers.resblock import (
    DoubledConv,
    GroupNorm,
    Pointwise,
    ResBlock,
    double,
    halve,
)

X = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))


def test_halving_undoes_doubling():
    np.testing.assert_allclose(halve(double(X)), X, atol=1e-6)


def test_group_norm_leaves_each_group_mean_0_and_variance_1():
    x = 3 + 2 * jax.random.normal(jax.random.key(1), (2, 4, 4, 8))
    params = {"scale": jnp.ones(8), "bias": jnp.zeros(8)}
    y = GroupNorm(4).apply({"params": params}, x).reshape(2, 16, 4, 2)
    np.testing.assert_allclose(y.mean((1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((1, 3)), 1, atol=1e-4)


@pytest.mark.parametrize(("resize", "expected"), [("same", 8), ("down", 4), ("up", 16)])
def test_a_fresh_residual_block_only_resizes(resize, expected):
    block = ResBlock(4, resize, groups=2)
    x = jax.random.normal(jax.random.key(2), (2, 8, 8, 4))
    time = jnp.ones((2, 16))
    y = block.apply({"params": init_params(block, 0, x, time)}, x, time)
    change = {"same": lambda a: a, "down": halve, "up": double}[resize]
    assert y.shape[1] == expected
    np.testing.assert_allclose(y, change(x), atol=1e-6)


@pytest.mark.parametrize("size", [(4, 4), (1, 1), (3, 5), (8, 2)])
def test_the_smaller_kernels_see_what_one_sees_of_the_doubled_picture(size):
    x = jax.random.normal(jax.random.key(3), (2, *size, 4))
    block = DoubledConv(6)
    params = {"params": init_params(block, 0, x)}
    whole = block.apply(params, x, train=True)
    assert whole.shape == (2, 2 * size[0], 2 * size[1], 6)
    np.testing.assert_allclose(block.apply(params, x), whole, atol=2e-6)

    def slope(train):
        def loss(params, x):
            return jnp.sum(jnp.sin(block.apply(params, x, train)))

        return jax.grad(loss, (0, 1))(params, x)

    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, atol=2e-5),
        slope(False),
        slope(True),
    )


def test_the_smaller_kernels_are_summed_in_float32():
    x = jax.random.normal(jax.random.key(4), (2, 8, 8, 32)).astype(jnp.bfloat16)
    params = {"params": init_params(DoubledConv(6), 0, x)}
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    exact = DoubledConv(6).apply(params, x.astype(jnp.float32), train=True)

    def error(train):
        y = DoubledConv(6, "bfloat16").apply(params, x, train)
        return float(jnp.sqrt(jnp.mean((y - exact) ** 2)))

    assert error(False) < 1.5 * error(True)


def test_a_pointwise_product_is_a_1x1_convolution():
    plain = nn.Conv(5, (1, 1))
    params = {"params": init_params(plain, 0, X)}
    there = Pointwise(5).apply(params, X)
    np.testing.assert_allclose(there, plain.apply(params, X), atol=1e-6)
