"""The decoder's whitening layer stands in front of every route of z_i."""

import dataclasses

import jax
import numpy as np

from dalle2_jax.decoder.decoder import Decoder, DecoderConfig, example
from dalle2_jax.layers.init import init_params
from dalle2_jax.layers.unet import UNetConfig

UNET = UNetConfig(32, (1,), 1, (1,), head_width=16, context_width=16)
PLAIN = DecoderConfig(8, UNET, 6, spatial_map=2)


def test_a_whitened_decoder_hears_the_whitened_embedding():
    cfg = dataclasses.replace(PLAIN, whiten=True)
    rng = np.random.default_rng(0)
    params = init_params(Decoder(cfg), 0, *example(cfg))
    params = jax.tree.map(
        lambda x: x + 0.1 * rng.normal(size=x.shape).astype("f"), params
    )
    layer = params.pop("whiten")
    x_t, t, cond = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), example(cfg, 2))
    z = rng.normal(size=(2, 6)).astype("f")
    whitened = Decoder(cfg).apply(
        {"params": {**params, "whiten": layer}}, x_t, t, cond._replace(z_image=z)
    )
    heard = z @ layer["kernel"] + layer["bias"]
    plain = Decoder(PLAIN).apply(
        {"params": params}, x_t, t, cond._replace(z_image=heard)
    )
    np.testing.assert_allclose(whitened, plain, atol=1e-4)
