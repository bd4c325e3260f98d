"""DALLE2-pytorch's prior inside the cascade: captions to pictures."""

import jax
import numpy as np
import pytest

from dalle2_jax.clip.contrastive import ClipConfig
from dalle2_jax.clip.image import ImageTowerConfig
from dalle2_jax.clip.text import TextTowerConfig
from dalle2_jax.components import initial_params, save_component
from dalle2_jax.config import plain
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.decoder.decoder import DecoderConfig
from dalle2_jax.diffusion.schedule import Noise
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.unet import UNetConfig
from dalle2_jax.prior.dalle2_pytorch import Dalle2PytorchConfig
from dalle2_jax.unclip import Sampling, generate, load, prior_of

UNET = UNetConfig(32, (1,), 1, (1,), head_width=16, context_width=16)
CFG = {
    "clip": ClipConfig(
        16, ImageTowerConfig(16, 8, 16, 1, 2), TextTowerConfig(600, 12, 16, 1, 2)
    ),
    "prior_dalle2_pytorch": Dalle2PytorchConfig(16, 1, 2, 8, context=12, times=10),
    "decoder": DecoderConfig(8, UNET, 16, text_width=16),
}
NOISE = {"prior_dalle2_pytorch": Noise(steps=10, predicts="x0"), "decoder": Noise()}
WAYS = {
    "clip": {},
    "prior_dalle2_pytorch": {"steps": "lucid4", "sampler": "ddim", "guidance": 2.0},
    "decoder": {"steps": "2", "clip": 1.0},
}
CAPTIONS = ["a red ring", "a small blue square"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model directory of random networks that really depend on their inputs."""
    where, rng = tmp_path_factory.mktemp("model"), np.random.default_rng(0)
    for stage, cfg in CFG.items():
        params = jax.tree.map(
            lambda x: x + 0.1 * rng.standard_normal(x.shape, np.float32),
            initial_params(stage, cfg, 3),
        )
        noise = plain(NOISE[stage]) if stage in NOISE else None
        config = {"model": plain(cfg), "noise": noise, "sampling": WAYS[stage]}
        save_component(where, stage, config, params)
    Tokenizer.train(CAPTIONS * 3, 600).save(where / "tokenizer")
    return where


def test_it_draws_the_embedding_that_the_decoder_is_given(folder):
    model = load(folder)
    assert prior_of(model) == "prior_dalle2_pytorch"
    (image,) = generate(model, CAPTIONS, seed=1)
    assert image.shape == (2, 8, 8, 3) and image.dtype == np.uint8
    (again,) = generate(load(folder), CAPTIONS, seed=1)
    np.testing.assert_array_equal(again, image)
    longer = {"prior_dalle2_pytorch": Sampling(steps="10")}
    (other,) = generate(model, CAPTIONS, seed=1, how=longer)
    assert not np.array_equal(other, image)


def test_a_model_without_any_prior_says_so(folder):
    model = load(folder)._replace(prior_dalle2_pytorch=None)
    with pytest.raises(BadInput, match="holds no prior"):
        next(generate(model, CAPTIONS))
