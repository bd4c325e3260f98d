"""Counting operations: closed formulas, and XLA's own count where it has no loops."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.errors import BadInput
from dalle2_jax.layers.transformer import TransformerConfig, transformer
from dalle2_jax.shard.flops import flops_of
from dalle2_jax.shard.hardware import CHIPS, KINDS, peak_of
from dalle2_jax.shard.mesh import MeshConfig, make_mesh


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, np.float32)


def xla(function, *args):
    """XLA's count before any rewriting."""
    return jax.jit(function).lower(*args).cost_analysis()["flops"]


class Stack(nn.Module):
    """Ten layers of width 8; the loop is not unrolled."""

    remat: bool = False

    @nn.compact
    def __call__(self, x):
        return transformer(TransformerConfig(8, 10, 2, remat=self.remat), x)


def gradient(remat):
    x = shape(2, 6, 8)
    net = Stack(remat)
    params = jax.eval_shape(net.init, jax.random.key(0), x)
    loss = jax.grad(lambda p, x: net.apply(p, x).sum(), argnums=(0, 1))
    return flops_of(loss, params, x)


def test_matrix_products_by_formula():
    a, b = shape(3, 4, 5), shape(3, 5, 7)
    assert flops_of(jnp.matmul, a, b) == 2 * 3 * 4 * 5 * 7
    both = jax.grad(lambda a, b: (a @ b).sum(), argnums=(0, 1))
    assert flops_of(both, a, b) == 3 * 2 * 3 * 4 * 5 * 7


def test_loops_count_as_often_as_they_run():
    layer = 2 * 2 * 6 * (4 * 8 * 8 + 2 * 6 * 8 + 2 * 8 * 32)
    net, x = Stack(), shape(2, 6, 8)
    params = jax.eval_shape(net.init, jax.random.key(0), x)
    assert flops_of(net.apply, params, x) == 10 * layer
    assert gradient(remat=False) == 3 * 10 * layer
    again = gradient(remat=True) / (3 * 10 * layer)
    assert 1.2 < again <= 4 / 3


@pytest.mark.parametrize("size, stride, groups", [(8, 1, 1), (8, 2, 1), (9, 2, 2)])
@pytest.mark.parametrize("mode", ["plain", "transposed", "dilated"])
def test_convolutions_as_xla_counts_them(size, stride, groups, mode):
    x, w = shape(2, size, size, 4), shape(3, 3, 4 // groups, 6)

    def conv(x, w):
        more = {
            "plain": {"window_strides": (stride, stride)},
            "transposed": {"window_strides": (1, 1), "lhs_dilation": (2, 2)},
            "dilated": {"window_strides": (stride, stride), "rhs_dilation": (2, 2)},
        }[mode]
        return jax.lax.conv_general_dilated(
            x,
            w,
            padding=((1, 1), (2, 0)),
            feature_group_count=groups,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            **more,
        )

    def both(x, w):
        y, back = jax.vjp(conv, x, w)
        return back(y)

    for function in (conv, both):
        ours, theirs = flops_of(function, x, w), xla(function, x, w)
        assert ours == pytest.approx(theirs, rel=0.01), function


def test_branches_calls_and_shards():
    def product(x):
        return x @ x

    x, each = shape(16, 16), 2 * 16**3
    cond = flops_of(lambda x: jax.lax.cond(True, product, jnp.tanh, x), x)
    assert cond == each
    assert flops_of(jax.jit(jax.checkpoint(product)), x) == each
    mesh = make_mesh(MeshConfig(data=8))
    rows = jax.sharding.PartitionSpec("data")
    spread = jax.shard_map(
        lambda a, b: a @ b, mesh=mesh, in_specs=(rows, None), out_specs=rows
    )
    assert flops_of(spread, x, x) == each


def test_a_loop_of_unknown_length_is_refused():
    def until(x):
        return jax.lax.while_loop(lambda x: x.sum() < 1, lambda x: x @ x, x)

    with pytest.raises(BadInput, match="unknown length"):
        flops_of(until, shape(2, 2))
    assert (
        flops_of(lambda x: jax.lax.fori_loop(0, 5, lambda i, x: x @ x, x), shape(2, 2))
        == 80
    )


def test_peaks_are_known_by_kind():
    class Device:
        device_kind = "TPU v5"

    assert peak_of(Device) == CHIPS["v5p"].peak == KINDS["TPU v5p"].peak
    assert peak_of(jax.devices()[0]) is None
