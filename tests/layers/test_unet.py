"""The ADM skeleton: blocks, sizes, options."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.errors import BadInput
from dalle2_jax.layers.init import init_params, param_shapes
from dalle2_jax.layers.unet import UNet, UNetConfig

CFG = UNetConfig(8, (1, 2), 1, (2,), head_width=8, groups=4)
X = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
T = jnp.array([3, 700])


@functools.partial(jax.jit, static_argnums=0)
def run(cfg, params, x=X):
    return UNet(cfg).apply({"params": params}, x, T)


def shaken(params):
    """Every leaf moved a little, so that zero-initialised layers speak."""
    return jax.tree.map(
        lambda a: a + 0.1 * jnp.cos(jnp.arange(a.size)).reshape(a.shape), params
    )


def test_a_fresh_unet_predicts_nothing():
    assert jnp.all(run(CFG, init_params(UNet(CFG), 0, X, T)) == 0)


@pytest.mark.parametrize(
    "change",
    [{}, {"updown": "conv", "scale_shift": False}, {"patch": 2, "attend": ()}],
    ids=str,
)
def test_every_option_keeps_the_shape_and_hears_every_pixel(change):
    cfg = dataclasses.replace(CFG, **change)
    params = shaken(init_params(UNet(cfg), 0, X, T))
    assert run(cfg, params).shape == X.shape
    moved = run(cfg, params, X.at[0, 0, 0, 0].add(1.0)) - run(cfg, params)
    assert jnp.any(moved[0] != 0)
    assert jnp.all(moved[1] == 0)


def test_rematerialisation_changes_no_output():
    params = shaken(init_params(UNet(CFG), 0, X, T))
    again = run(dataclasses.replace(CFG, remat=True), params)
    np.testing.assert_allclose(again, run(CFG, params), atol=1e-5)


def test_without_attend_there_is_no_attention_anywhere():
    cfg = dataclasses.replace(CFG, attend=())
    paths = jax.tree_util.tree_leaves_with_path(param_shapes(UNet(cfg), X, T))
    assert not [p for p, _ in paths if "attention" in jax.tree_util.keystr(p)]


def test_bfloat16_compute_gives_float32_output_close_by():
    params = shaken(init_params(UNet(CFG), 0, X, T))
    half = run(dataclasses.replace(CFG, dtype="bfloat16"), params)
    assert half.dtype == jnp.float32
    full = run(CFG, params)
    assert jnp.linalg.norm(half - full) < 0.05 * jnp.linalg.norm(full)


@pytest.mark.parametrize("shape", [(1, 7, 8, 3), (1, 8, 8, 4)])
def test_a_misfit_image_is_refused(shape):
    with pytest.raises(BadInput, match="multiples of 2"):
        param_shapes(UNet(CFG), jnp.zeros(shape), T[:1])
