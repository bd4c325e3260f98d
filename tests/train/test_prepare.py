"""A whitened prior: moments from the first pictures, constant under training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.cli.overrides import load_run
from dalle2_jax.components import initial_params
from dalle2_jax.data.batches import Captioned
from dalle2_jax.errors import BadInput
from dalle2_jax.prior.diffusion import from_scaled, to_scaled
from dalle2_jax.shard.mesh import MeshConfig, make_mesh
from dalle2_jax.train.fit import Job, fit
from dalle2_jax.train.losses import LOSSES, Embedded, _emptied
from dalle2_jax.train.prepare import fit_tables
from dalle2_jax.unclip import encode_images, from_uint8

SMALL = ["model.text.depth=1", "model.image.width=16", "model.clip=8"]
KARLO = [
    "model.clip=8",
    "model.width=32",
    "model.depth=1",
    "model.heads=2",
    "model.context=20",
    "model.text_width=64",
    "model.dtype='float32'",
    "codes_from=30",
    "batch=16",
]
CLIP = load_run("configs/clip.py:small", [f"--config.{word}" for word in SMALL]).model
FROZEN = {"clip": initial_params("clip", CLIP, 0)}
RUN = load_run("configs/prior_diffusion.py:karlo", [f"--config.{w}" for w in KARLO])
RNG = np.random.default_rng(0)
BATCHES = [
    Captioned(
        RNG.integers(0, 256, (16, 32, 32, 3), np.uint8),
        np.int32([[1, *RNG.integers(3, 300, 4), 639, *14 * [0]] for _ in range(16)]),
    )
    for _ in range(3)
]


def fitted():
    mesh = make_mesh(MeshConfig(1), jax.devices()[:1])
    params = initial_params("prior", RUN.model, 0)
    return fit_tables(RUN, CLIP, FROZEN, params, BATCHES, mesh)


def test_whitening_is_fitted_and_stays_constant_in_training():
    params = fitted()
    pictures = np.concatenate([batch.image for batch in BATCHES])[:30]
    z = encode_images(CLIP, FROZEN["clip"], from_uint8(jnp.asarray(pictures)))
    white = to_scaled(RUN.model, params, z)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-2)
    np.testing.assert_allclose(white.std(0), 1, rtol=1e-2)
    np.testing.assert_allclose(from_scaled(RUN.model, params, white), z, atol=1e-5)
    loss = jax.jit(jax.grad(LOSSES["prior"](RUN, CLIP), has_aux=True))
    batch = jax.tree.map(jnp.asarray, BATCHES[0])
    grads, _ = loss(params, FROZEN, batch, jax.random.key(0))
    assert not np.any(grads["clip_mean"]) and not np.any(grads["clip_std"])
    assert np.any(grads["layers"]["mlp"]["up"]["kernel"])


def test_dropped_captions_are_the_empty_one():
    batch = jax.tree.map(jnp.asarray, BATCHES[0])
    emptied = _emptied(batch, jax.random.key(0), 0.5).tokens
    gone = np.asarray((emptied != batch.tokens).any(1))
    assert 0 < gone.sum() < 16
    np.testing.assert_array_equal(emptied[gone][0], [1, 639, *18 * [0]])
    np.testing.assert_array_equal(emptied[~gone], batch.tokens[~gone])


def test_embeddings_have_no_empty_caption():
    z = jnp.zeros((2, 8))
    batch = Embedded(z, z, jnp.zeros((2, 20, 64)), jnp.ones((2, 20), bool))
    with pytest.raises(BadInput, match="'learned'"):
        LOSSES["prior"](RUN, None)({}, {}, batch, jax.random.key(0))


@pytest.mark.parametrize("choice", ["prior_diffusion.py:karlo", "decoder_64.py:small"])
def test_only_what_is_fitted_asks_for_pictures(choice):
    wrong = 0 if "karlo" in choice else 5
    with pytest.raises(BadInput, match="codes_from"):
        load_run(f"configs/{choice}", [f"--config.codes_from={wrong}"])


def test_a_stage_without_a_loss_is_refused_before_anything_is_written(tmp_path):
    run = dataclasses.replace(RUN, stage="adm")
    with pytest.raises(BadInput, match="not trained here"):
        fit(run, Job("nothing.tar", tmp_path / "run", tmp_path / "model"))
    assert not any(tmp_path.iterdir())
