"""A small random model whose networks hear all that they are given."""

import jax
import numpy as np

from dalle2_jax.clip.contrastive import ClipConfig
from dalle2_jax.clip.image import ImageTowerConfig
from dalle2_jax.clip.text import TextTowerConfig
from dalle2_jax.components import initial_params, save_component
from dalle2_jax.config import plain
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.decoder.decoder import DecoderConfig
from dalle2_jax.decoder.upsampler import UpsamplerConfig
from dalle2_jax.diffusion.schedule import Noise
from dalle2_jax.layers.unet import UNetConfig
from dalle2_jax.prior.diffusion import PriorConfig
from dalle2_jax.unclip import Sampling, generate

CAPTIONS = ["a red ring", "a small blue square", "a ring", "a cross", "two", "big"]
UNET = {"channels": 8, "multiples": (1,), "depth": 1, "groups": 4}
CFG = {
    "clip": ClipConfig(
        clip=16,
        text=TextTowerConfig(vocab=600, context=24, width=16, depth=1, heads=2),
        image=ImageTowerConfig(16, 8, width=16, depth=1, heads=2),
    ),
    "prior": PriorConfig(
        clip=16, width=16, depth=1, heads=2, context=24, text_width=16, scale=4.0
    ),
    "decoder": DecoderConfig(
        8, UNetConfig(**UNET, attend=(1,), context_width=16), clip=16, text_width=16
    ),
    "upsampler": UpsamplerConfig(size=16, unet=UNetConfig(**UNET), factor=2),
}


def loud(params):
    """Parameters with noise on them, so that every input is heard."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: x + 0.05 * rng.normal(size=x.shape).astype("f"), params
    )


def pictures(model, captions, batch, **more):
    """uint8 [n, y, x, 3] of captions, with seed 7."""
    return np.concatenate(list(generate(model, captions, 7, batch, **more)))


def save_small_model(where):
    """Writes CLIP, prior, decoder, upsampler and tokenizer as a model directory."""
    for stage, cfg in CFG.items():
        params = loud(initial_params(stage, cfg, seed=3))
        noise = None if stage == "clip" else plain(Noise(predicts="v"))
        way = plain(Sampling(steps="4", guidance=2.0, clip=1.0))
        config = {"stage": stage, "model": plain(cfg), "noise": noise, "sampling": way}
        save_component(where, stage, config, params)
    more = ["a red ring", "a blue square", "a photo", "on white at the left"]
    Tokenizer.train([*CAPTIONS, *more] * 6, 600).save(where / "tokenizer")
    return where
