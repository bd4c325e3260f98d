"""BSR: every step by itself, then pictures by recipe."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dalle2_jax.cli.overrides import load_run
from dalle2_jax.components import initial_params
from dalle2_jax.data.batches import Captioned
from dalle2_jax.decoder.bsr import (
    RECIPES,
    RESIZE,
    RESIZE_LAST,
    STEPS,
    Canvas,
    _held,
    _noisy,
    _order,
    blur_kernel,
    bsr,
    resize_weights,
)
from dalle2_jax.errors import BadInput
from dalle2_jax.train.losses import LOSSES

KEYS = jax.random.split(jax.random.key(0), 64)
CHANCES = jax.random.uniform(jax.random.key(3), (64, 6))
SMALL = np.random.default_rng(0).integers(0, 256, (3, 3, 3), np.uint8)
SMOOTH = np.asarray(Image.fromarray(SMALL).resize((32, 32), Image.Resampling.BICUBIC))
HIGH = jnp.broadcast_to(jnp.float32(SMOOTH) / 127.5 - 1, (64, 32, 32, 3))
RUN = jax.jit(bsr, static_argnums=(2, 3))


@pytest.fixture(scope="module")
def made():
    return {kind: RUN(KEYS, HIGH, 4, kind) for kind in RECIPES}


def test_pictures_are_small_and_in_range(made):
    for low in made.values():
        assert low.shape == (64, 8, 8, 3) and low.dtype == jnp.float32
        assert jnp.all(jnp.abs(low) <= 1)


def test_every_picture_is_treated_otherwise_and_by_its_own_key_alone(made):
    assert len({picture.tobytes() for picture in np.asarray(made["bsr"])}) == 64
    again = RUN(KEYS[::-1], HIGH, 4, "bsr")[::-1]
    np.testing.assert_allclose(again, made["bsr"], atol=1e-6)


def test_it_is_the_same_picture_worse_by_the_full_recipe_than_by_the_light_one(made):
    clean = jax.image.resize(HIGH, (64, 8, 8, 3), "linear")
    error = {k: jnp.sqrt(jnp.mean((low - clean) ** 2)) for k, low in made.items()}
    assert 0.02 < error["bsr_light"] < 0.9 * error["bsr"]
    for low in made.values():
        mean = low.mean((0, 1, 2)) - clean.mean((0, 1, 2))
        assert jnp.all(jnp.abs(mean) < 0.06)
        assert np.corrcoef(low.mean(0).ravel(), clean[0].ravel())[0, 1] > 0.7


def test_the_order_is_random_and_the_last_resize_behind_the_other():
    u = jax.random.uniform(jax.random.key(1), (400, len(STEPS)))
    orders = np.asarray(jax.vmap(_order)(u))
    np.testing.assert_array_equal(np.sort(orders), np.tile(np.sort(STEPS), (400, 1)))
    first, last = (np.argmax(orders == step, axis=1) for step in (RESIZE, RESIZE_LAST))
    assert np.all(first < last)
    assert len({tuple(order) for order in orders}) > 100


@pytest.mark.parametrize("method", [0, 1, 2])
@pytest.mark.parametrize(("old", "new"), [(16, 16), (16, 5), (6, 16), (12, 7)])
def test_resizing_keeps_plain_pictures_and_slopes(method, old, new):
    weights = np.asarray(resize_weights(16, old, new, method))[:new]
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    assert not weights[:, old:].any()
    middles = (np.arange(new) + 0.5) * old / new - 0.5
    error = np.abs(weights @ np.arange(16) - middles)
    assert error[4:-4].max(initial=0) < (0.5 if method == 2 else 1e-4)


def test_resizing_to_the_same_size_changes_nothing():
    for method in range(3):
        np.testing.assert_allclose(
            resize_weights(9, 9, 9, method), np.eye(9), atol=1e-6
        )


def test_area_weights_are_block_means():
    weights = np.asarray(resize_weights(8, 8, 4, 2))[:4]
    np.testing.assert_allclose(weights, np.kron(np.eye(4), [[0.5, 0.5]]), atol=1e-6)


def test_blur_kernels_are_gaussians_of_many_shapes():
    kernels = jax.vmap(lambda u: blur_kernel(u, 4, RECIPES["bsr"]))(CHANCES)
    np.testing.assert_allclose(kernels.sum((1, 2)), 1, rtol=1e-5)
    np.testing.assert_allclose(kernels, kernels[:, ::-1, ::-1], atol=1e-7)
    side = jnp.arange(19) - 9
    y = jnp.einsum("kij,i->k", kernels, side**2)
    x = jnp.einsum("kij,j->k", kernels, side**2)
    assert jnp.max(y) < 9 and jnp.max(y) > 4 and jnp.min(y) < 0.2
    assert jnp.any(jnp.abs(x - y) > 1) and jnp.any(jnp.abs(x - y) < 1e-4)


def test_noise_has_the_recipes_deviation():
    flat = Canvas(jnp.full((32, 32, 3), 0.5), jnp.array([32, 32]))
    eps = jax.random.normal(jax.random.key(4), (64, 32, 32, 4))
    noisy = jax.vmap(lambda u, e: _noisy(u, flat, e, RECIPES["bsr"]).pixels)
    noise = noisy(CHANCES, eps) - 0.5
    deviation = noise.std((1, 2, 3)) * 255
    assert deviation.min() > 1.5 and deviation.max() < 27
    assert abs(deviation.mean() - 13.5) < 3
    grey = jnp.ptp(noise, axis=-1).max((1, 2)) < 1e-6
    assert 0.2 < grey.mean() < 0.6


def test_the_frame_beyond_a_picture_repeats_its_border():
    pixels = jax.random.uniform(jax.random.key(2), (8, 8, 3))
    held = _held(Canvas(pixels, jnp.array([5, 3]))).pixels
    expected = jnp.pad(pixels[:5, :3], [(0, 3), (0, 5), (0, 0)], mode="edge")
    np.testing.assert_array_equal(held, expected)


def test_training_is_told_by_the_configuration():
    run = load_run("configs/upsampler_1024.py:small", ["--config.model.size=64"])
    assert run.corrupt.kind == "bsr_light"
    params = initial_params(run.stage, run.model, 0)
    batch = Captioned(jnp.zeros((2, 64, 64, 3), jnp.uint8), jnp.zeros((2, 4), int))
    loss = jax.jit(LOSSES[run.stage](run, None))
    value, _ = loss(params, {}, batch, jax.random.key(0))
    assert jnp.isfinite(value)


def test_another_kind_is_refused():
    with pytest.raises(BadInput, match="kind must be one of blur, bsr"):
        load_run("configs/upsampler_1024.py:small", ["--config.corrupt.kind=fog"])
