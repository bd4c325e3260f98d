"""The decoder's ears: every route of z_i and caption opens and closes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.decoder.caption import CaptionConfig
from dalle2_jax.decoder.decoder import (
    Condition,
    Decoder,
    DecoderConfig,
    everything,
    example,
    forget,
    nothing,
)
from dalle2_jax.layers.init import init_params
from dalle2_jax.layers.unet import UNetConfig

UNET = UNetConfig(8, (1, 2), 1, (2,), head_width=8, groups=4, context_width=8)
GIVEN = DecoderConfig(8, UNET, 6, text_width=5, pooled_text=True, spatial_map=2)
OWN = DecoderConfig(
    8, UNET, 6, caption=CaptionConfig(20, 4, 8, 1, 2), pooled_text=True, null="zeros"
)
X = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
T = jnp.array([5, 800])
KEYS = jax.random.split(jax.random.key(1), 3)
COND = everything(
    Condition(
        z_image=jax.random.normal(KEYS[0], (2, 6)),
        pooled=jax.random.normal(KEYS[1], (2, 6)),
        states=jax.random.normal(KEYS[2], (2, 4, 5)),
        mask=jnp.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool),
    )
)
TOKENS = jnp.array([[1, 2, 3, 4], [5, 6, 0, 0]])


def speaking(cfg):
    """Parameters without a zero-initialised layer."""
    params = init_params(Decoder(cfg), 0, *example(cfg))
    return jax.tree.map(
        lambda a: a + 0.1 * jnp.cos(jnp.arange(a.size)).reshape(a.shape), params
    )


PARAMS = speaking(GIVEN)


@jax.jit
def pull(cond):
    """Gradient of every pixel to z_image, pooled and states."""

    def total(z_image, pooled, states):
        inside = cond._replace(z_image=z_image, pooled=pooled, states=states)
        out = Decoder(GIVEN).apply({"params": PARAMS}, X, T, inside)
        return jnp.sum(out * jnp.cos(jnp.arange(out.size)).reshape(out.shape))

    return jax.grad(total, (0, 1, 2))(cond.z_image, cond.pooled, cond.states)


def test_everything_is_heard_but_padding():
    z_image, pooled, states = pull(COND)
    assert jnp.all(z_image != 0) and jnp.all(pooled != 0)
    assert jnp.all(states[0] != 0) and jnp.all(states[1, 2:] == 0)


def test_keep_image_closes_every_route_of_z_i_for_its_sample_only():
    z_image, pooled, states = pull(COND._replace(keep_image=jnp.array([0.0, 1.0])))
    assert jnp.all(z_image[0] == 0) and jnp.all(z_image[1] != 0)
    assert jnp.all(pooled != 0) and jnp.all(states[0] != 0)


def test_keep_text_closes_every_route_of_the_caption_for_its_sample_only():
    z_image, pooled, states = pull(COND._replace(keep_text=jnp.array([0.0, 1.0])))
    assert jnp.all(pooled[0] == 0) and jnp.all(states[0] == 0)
    assert jnp.all(pooled[1] != 0) and jnp.all(z_image != 0)


def test_nothing_is_nothing():
    assert all(jnp.all(g == 0) for g in pull(nothing(COND)))


def test_image_tokens_stand_in_front_of_the_captions():
    @jax.jit
    def context(cond):
        apply = Decoder(GIVEN).apply
        _, kept = apply({"params": PARAMS}, X, T, cond, mutable=["intermediates"])
        return kept["intermediates"]["context"][0]

    changed = COND._replace(z_image=2 * COND.z_image)
    moved = jnp.any(context(COND) != context(changed), axis=-1)
    np.testing.assert_array_equal(moved[0], 4 * [True] + 4 * [False])


def test_a_decoder_with_its_own_transformer_forgets_the_tokens():
    params = speaking(OWN)
    apply = jax.jit(lambda c: Decoder(OWN).apply({"params": params}, X, T, c))
    cond = COND._replace(pooled=None, states=None, tokens=TOKENS)
    other = cond._replace(tokens=TOKENS[::-1], mask=COND.mask[::-1])
    assert jnp.any(apply(cond) != apply(other))
    np.testing.assert_array_equal(apply(nothing(cond)), apply(nothing(other)))


@pytest.mark.parametrize(("image", "text"), [(0.1, 0.5), (0.0, 1.0)])
def test_forget_drops_both_at_their_rates_and_independently(image, text):
    n = 20_000
    cond = forget(Condition(jnp.zeros((n, 1))), jax.random.key(0), image, text)
    gone_image, gone_text = 1 - cond.keep_image, 1 - cond.keep_text
    error = 4 * 0.5 / np.sqrt(n)
    assert abs(gone_image.mean() - image) < error
    assert abs(gone_text.mean() - text) < error
    assert abs((gone_image * gone_text).mean() - image * text) < error


def test_forget_of_a_sample_depends_on_its_key_alone():
    keys = jax.random.split(jax.random.key(3), 64)
    whole = forget(Condition(jnp.zeros((64, 1))), keys)
    part = forget(Condition(jnp.zeros((7, 1))), keys[20:27])
    np.testing.assert_array_equal(whole.keep_text[20:27], part.keep_text)
    np.testing.assert_array_equal(whole.keep_image[20:27], part.keep_image)


def test_forget_never_brings_back_what_was_dropped():
    cond = forget(nothing(COND), jax.random.key(0), 0.0, 0.0)
    assert jnp.all(cond.keep_image == 0) and jnp.all(cond.keep_text == 0)


def test_dropout_needs_its_key_only_in_training():
    cfg = dataclasses.replace(GIVEN, unet=dataclasses.replace(UNET, dropout=0.5))
    run = jax.jit(Decoder(cfg).apply, static_argnames="train")
    plain = run({"params": PARAMS}, X, T, COND)
    noisy = run(
        {"params": PARAMS}, X, T, COND, train=True, rngs={"dropout": jax.random.key(0)}
    )
    assert jnp.any(plain != noisy)


def test_context_needs_a_width():
    with pytest.raises(AssertionError, match="context_width"):
        DecoderConfig(8, dataclasses.replace(UNET, context_width=0), 6)
