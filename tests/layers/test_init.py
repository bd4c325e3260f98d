"""First values by name: the same distribution as the modules' own initialisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.clip import contrastive
from dalle2_jax.clip.image import ImageTowerConfig
from dalle2_jax.clip.text import TextTowerConfig
from dalle2_jax.decoder import decoder
from dalle2_jax.decoder.caption import CaptionConfig
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.init import first_value, init_params
from dalle2_jax.layers.unet import UNetConfig
from dalle2_jax.prior import diffusion

TEXT = TextTowerConfig(50, 8, 64, 2, 4)
CLIP = contrastive.ClipConfig(32, ImageTowerConfig(16, 4, 64, 2, 4), TEXT)
TINY = contrastive.ClipConfig(
    32, ImageTowerConfig(16, 4, 64, 2, 4, stem="conv", head="tokens"), TEXT
)
PRIOR = diffusion.PriorConfig(32, 64, 2, 4, 8, 32, whiten=True)
UNET = UNetConfig(16, (1, 2), 1, (2,), context_width=32, groups=8, classes=0)
DECODER = decoder.DecoderConfig(
    8, UNET, 32, caption=CaptionConfig(50, 8, 32, 1, 4), spatial_map=2
)
MODELS = {
    "clip": (contrastive.Clip(CLIP), contrastive.example(CLIP)),
    "clip for tiny images": (contrastive.Clip(TINY), contrastive.example(TINY)),
    "prior": (diffusion.Prior(PRIOR), diffusion.example(PRIOR)),
    "decoder": (decoder.Decoder(DECODER), decoder.example(DECODER)),
}


def zeros_like(shapes):
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


@pytest.mark.parametrize("name", MODELS)
def test_values_are_distributed_as_by_the_modules(name):
    model, shapes = MODELS[name]
    key = jax.random.key(0, impl="unsafe_rbg")  # compiles fast
    theirs = jax.jit(model.init)(key, *zeros_like(shapes))["params"]
    ours = init_params(model, 0, *shapes)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)

    def same(path, a, b):
        where = jax.tree_util.keystr(path)
        assert a.shape == b.shape and a.dtype == b.dtype, where
        if np.ptp(b) == 0:
            np.testing.assert_allclose(a, b, rtol=1e-6, err_msg=where)
        else:
            spread = 5 / np.sqrt(2 * a.size)
            assert abs(np.std(a) / np.std(b) - 1) < 2 * spread + 1e-3, where
            assert abs(np.mean(a)) < 5 * np.std(a) / np.sqrt(a.size), where

    jax.tree_util.tree_map_with_path(same, ours, theirs)


def test_values_follow_seed_and_path_alone():
    a = first_value("x/kernel", (3, 4), 0)
    np.testing.assert_array_equal(a, first_value("x/kernel", (3, 4), 0))
    assert np.any(a != first_value("x/kernel", (3, 4), 1))
    assert np.any(a != first_value("y/kernel", (3, 4), 0))


def test_a_name_without_a_rule_is_an_error():
    with pytest.raises(BadInput, match="a/strange"):
        first_value("a/strange", (1,), 0)
