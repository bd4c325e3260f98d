"""The prior: what it hears of the caption, and in which order."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.errors import BadInput
from dalle2_jax.layers.init import init_params
from dalle2_jax.prior.diffusion import (
    Prior,
    PriorConfig,
    Text,
    example,
    from_scaled,
    nothing,
    to_scaled,
)

CFG = PriorConfig(8, 16, 2, 2, context=5, text_width=6)
KEYS = jax.random.split(jax.random.key(0), 3)
Z = jax.random.normal(KEYS[0], (2, 8))
T = jnp.array([10, 900])
TEXT = Text(
    pooled=jax.random.normal(KEYS[1], (2, 8)),
    states=jax.random.normal(KEYS[2], (2, 5, 6)),
    mask=jnp.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool),
    keep=jnp.ones(2),
)
PARAMS = init_params(Prior(CFG), 0, Z, T, TEXT)


@jax.jit
def sequence(z, text):
    """Every state of the sequence after the last block: [b, 9, width]."""
    _, kept = Prior(CFG).apply(
        {"params": PARAMS}, z, T, text, mutable=["intermediates"]
    )
    return kept["intermediates"]["sequence"][0]


@jax.jit
def pull(text):
    def total(z, pooled, states):
        inside = text._replace(pooled=pooled, states=states)
        return Prior(CFG).apply({"params": PARAMS}, z, T, inside).sum()

    return jax.grad(total, (0, 1, 2))(Z, text.pooled, text.states)


@jax.jit
def pull_of_place(place):
    def at(states, pooled, z):
        text = TEXT._replace(states=states, pooled=pooled)
        return sequence(z, text)[0, place].sum()

    return jax.grad(at, (0, 1, 2))(TEXT.states, TEXT.pooled, Z)


@pytest.mark.parametrize("place", range(9))
def test_no_place_hears_a_later_one(place):
    """Order of unCLIP §2.2: 5 caption states, pooled text, time, noised z_i, query."""

    states, pooled, z = pull_of_place(place)
    heard = [bool(jnp.any(states[0, i] != 0)) for i in range(5)]
    heard += [bool(jnp.any(pooled[0] != 0)), bool(jnp.any(z[0] != 0))]
    at_most = [0, 1, 2, 3, 4, 5, 7]  # places of those seven; 6 is time
    assert heard == [i <= place for i in at_most]


def test_padding_is_not_heard():
    _, _, states = pull(TEXT)
    assert jnp.all(states[1, 3:] == 0)
    assert jnp.all(jnp.any(states[1, :3] != 0, axis=-1))


def test_a_dropped_caption_is_not_heard_at_all():
    z, pooled, states = pull(nothing(TEXT))
    assert jnp.all(pooled == 0) and jnp.all(states == 0)
    assert jnp.any(z != 0)


def test_drops_are_per_sample():
    _, pooled, states = pull(TEXT._replace(keep=jnp.array([0.0, 1.0])))
    assert jnp.all(pooled[0] == 0) and jnp.all(states[0] == 0)
    assert jnp.any(pooled[1] != 0) and jnp.any(states[1] != 0)


def test_keep_belongs_to_a_learned_null():
    with pytest.raises(BadInput, match="keep"):
        Prior(CFG).apply({"params": PARAMS}, Z, T, TEXT._replace(keep=None))
    empty = dataclasses.replace(CFG, null="empty")
    paths = init_params(Prior(empty), 0, *example(empty))
    assert not [name for name in paths if name.startswith("null")]


def test_scaling_gives_about_unit_variance_and_comes_back():
    z = jax.random.normal(KEYS[0], (500, 8))
    z = z / jnp.linalg.norm(z, axis=-1, keepdims=True)
    scaled = to_scaled(CFG, PARAMS, z)
    np.testing.assert_allclose(jnp.mean(scaled**2), 1, rtol=1e-5)
    np.testing.assert_allclose(from_scaled(CFG, PARAMS, scaled), z, atol=1e-6)


def test_the_papers_scale():
    cfg = dataclasses.replace(CFG, scale=17.2)
    np.testing.assert_allclose(to_scaled(cfg, {}, Z), 17.2 * Z, rtol=1e-6)


def test_whitening_uses_the_stored_moments():
    cfg = dataclasses.replace(CFG, whiten=True)
    params = init_params(Prior(cfg), 0, *example(cfg))
    params["clip_mean"], params["clip_std"] = jnp.full(8, 0.3), jnp.full(8, 0.1)
    z = 0.3 + 0.1 * Z
    np.testing.assert_allclose(to_scaled(cfg, params, z), Z, atol=1e-5)
    np.testing.assert_allclose(from_scaled(cfg, params, Z), z, atol=1e-6)
