"""The upsampler: no attention, no caption, any size."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.decoder.upsampler import Upsampler, UpsamplerConfig, enlarge, example
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.init import init_params, param_shapes
from dalle2_jax.layers.unet import UNetConfig

CFG = UpsamplerConfig(16, UNetConfig(8, (1, 2), 1, groups=4))
LOW = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
X = jnp.zeros((2, 16, 16, 3))
T = jnp.array([0, 500])


def test_there_is_no_attention_parameter():
    leaves = jax.tree_util.tree_leaves_with_path(
        param_shapes(Upsampler(CFG), *example(CFG))
    )
    names = [jax.tree_util.keystr(path) for path, _ in leaves]
    assert names and not [n for n in names if "attention" in n]


def test_one_set_of_parameters_serves_crops_and_full_images():
    params = init_params(Upsampler(CFG), 0, *example(CFG))
    for side in (2, 6):
        x, low = jnp.zeros((2, 4 * side, 4 * side, 3)), jnp.zeros((2, side, side, 3))
        out = jax.jit(Upsampler(CFG).apply)({"params": params}, x, T, low)
        assert out.shape == x.shape


def test_a_fresh_residual_upsampler_returns_the_enlarged_image():
    cfg = dataclasses.replace(CFG, residual=True)
    params = init_params(Upsampler(cfg), 0, X, T, LOW)
    out = jax.jit(Upsampler(cfg).apply)({"params": params}, X, T, LOW)
    np.testing.assert_allclose(out, enlarge(LOW, X.shape, "bilinear"), atol=1e-6)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_enlarging_keeps_constants_and_means(method):
    plain = jnp.full((1, 4, 4, 3), 0.3)
    np.testing.assert_allclose(enlarge(plain, (1, 16, 16, 3), method), 0.3, atol=1e-6)


def test_images_that_do_not_belong_together_are_refused():
    with pytest.raises(BadInput, match="factor 4 needs"):
        param_shapes(Upsampler(CFG), X, T, jnp.zeros((2, 5, 5, 3)))
