"""The convolutional tower: a component like any other, its statistics never trained."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.clip.contrastive import Clip, ClipConfig, example
from dalle2_jax.clip.image import ImageTowerConfig
from dalle2_jax.clip.resnet import AttentionPool, BatchNorm, ResNetTower
from dalle2_jax.clip.text import TextTowerConfig
from dalle2_jax.components import load_component, save_component
from dalle2_jax.config import build, plain
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.init import init_params

RESNET = ImageTowerConfig(64, 32, 4, 5, 2, blocks=(1, 2, 1, 1))
CFG = ClipConfig(8, RESNET, TextTowerConfig(20, 6, 16, 1, 2))


def test_batchnorm_is_that_of_its_stored_statistics():
    rng = np.random.default_rng(0)
    x, scale, bias, mean = (rng.normal(size=(5, 3)).astype("f") for _ in range(4))
    variance = np.float32([0.5, 1.0, 4.0])
    stored = {"scale": scale[0], "bias": bias[0], "mean": mean[0]}
    stored["variance"] = variance
    ours = BatchNorm().apply({"params": stored}, x)
    expected = (x - mean[0]) / np.sqrt(variance + 1e-5) * scale[0] + bias[0]
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_attention_pool_of_equal_tokens_is_their_value():
    pool, x = AttentionPool(2, 6), jnp.ones((1, 4, 8))
    params = init_params(pool, 0, x)
    params["positions"] = np.zeros((5, 8), np.float32)
    value = x[:, 0] @ params["v"]["kernel"]
    expected = value @ params["out"]["kernel"]
    np.testing.assert_allclose(pool.apply({"params": params}, x), expected, atol=1e-5)


def test_gradients_reach_every_weight_but_the_statistics():
    tower, pixels = ResNetTower(RESNET, 8), jnp.zeros((1, 64, 64, 3)).at[0, 9].set(1)
    params = init_params(tower, 0, pixels)

    def loss(params):
        pooled = tower.apply({"params": params}, pixels).pooled
        return jnp.sum(pooled * jnp.arange(8))

    pull = jax.jit(jax.grad(loss))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(pull):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        still = name.endswith(("mean", "variance", "k/bias"))
        assert bool(jnp.abs(leaf).max() > 1e-6) != still, name


def test_a_model_directory_holds_it(tmp_path):
    params = init_params(Clip(CFG), 0, *example(CFG))
    save_component(tmp_path, "clip", {"stage": "clip", "model": plain(CFG)}, params)
    loaded = load_component(tmp_path, "clip")
    assert loaded.cfg == CFG
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    see = functools.partial(Clip(CFG).apply, method="image_states")
    features = jax.eval_shape(see, {"params": params}, example(CFG)[0])
    assert features.shape == (1, 4, 128)


@pytest.mark.parametrize("change", [{"depth": 4}, {"patch": 16}, {"blocks": [5]}])
def test_sizes_that_no_resnet_has_are_refused(change):
    with pytest.raises(BadInput, match="config.image: a ResNet has 4 blocks"):
        build(ImageTowerConfig, {**plain(RESNET), **change}, "config.image")
