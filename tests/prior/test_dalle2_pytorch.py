"""DALLE2-pytorch's prior: positions, attention, what is seen of a caption, sampling."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.diffusion.schedule import Noise
from dalle2_jax.diffusion.walk import Sampling
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.init import init_params, param_shapes
from dalle2_jax.prior.dalle2_pytorch import (
    BIAS_GAIN,
    Attention,
    Dalle2PytorchConfig,
    Dalle2PytorchPrior,
    GainNorm,
    buckets,
    example,
    rotate,
    sample_z_image,
)
from dalle2_jax.prior.diffusion import Text, nothing

CFG = Dalle2PytorchConfig(16, 2, heads=2, head_width=8, context=6, times=10)
NOISE = Noise(steps=10, predicts="x0")


def weights(cfg, seed=0):
    """Random parameters, those at 0 or 1 moved too."""
    rng = np.random.default_rng(seed)

    def loud(x):
        return x + 0.3 * rng.standard_normal(x.shape, np.float32)

    return jax.tree.map(loud, init_params(Dalle2PytorchPrior(cfg), seed, *example(cfg)))


def captions(b=3, n=5, d=16):
    rng = np.random.default_rng(1)
    pooled = rng.standard_normal((b, d), np.float32)
    states = rng.standard_normal((b, n, d), np.float32)
    mask = np.arange(n) < np.array([[n], [n - 2], [1]])[:b]
    return Text(pooled, states, mask, np.ones(b, np.float32))


def test_the_published_prior_has_its_size():
    """nousr's ViT-L/14 prior, opened with version 1.15: 101,894,016 to be trained."""
    cfg = Dalle2PytorchConfig(768, 12, heads=12, normformer=True)
    leaves = jax.tree.leaves(param_shapes(Dalle2PytorchPrior(cfg), *example(cfg)))
    assert sum(leaf.size for leaf in leaves) == 101_894_016


def predict(cfg, params, text, z=None, t=4):
    z = np.full(text.pooled.shape, 0.3, np.float32) if z is None else z
    apply = jax.jit(Dalle2PytorchPrior(cfg).apply)
    return apply({"params": params}, z, np.full(len(z), t, np.int32), text)


def test_buckets_are_exact_up_to_16_and_logarithmic_up_to_128():
    found = buckets(300)[-1, ::-1]  # how far back a key lies: -1 to 299
    far = [
        min(31, 16 + sum(n**16 >= 16**16 * 8**k for k in range(1, 17)))
        for n in range(16, 300)
    ]
    np.testing.assert_array_equal(found, [0, *range(16), *far])
    assert buckets(300).shape == (300, 301) and (np.triu(buckets(300)) == 0).all()


def test_rotated_products_depend_on_the_distance_alone():
    rng = np.random.default_rng(0)
    q, k = (np.tile(rng.standard_normal(8, np.float32), (1, 9, 1)) for _ in "qk")
    dots = np.einsum("bqe,bke->qk", rotate(q, 6), rotate(k, 6))
    for distance in range(-4, 5):
        line = np.diagonal(dots, distance)
        np.testing.assert_allclose(line, line[0], rtol=1e-4)
    assert np.ptp(dots[0]) > 0.1
    np.testing.assert_array_equal(rotate(q, 6)[..., 6:], q[..., 6:])


def test_the_last_norm_divides_by_the_largest_value():
    x = np.random.default_rng(0).standard_normal((4, 8), np.float32) * 1e-3
    x[1] = -np.abs(x[1])  # its largest value is negative, which turns the row round
    params = {"params": {"scale": np.ones(8, np.float32)}}
    row = x / x.max(-1, keepdims=True)
    expected = (row - row.mean(-1, keepdims=True)) / np.sqrt(
        row.var(-1, keepdims=True) + 1e-5
    )
    np.testing.assert_allclose(
        GainNorm(by_max=True).apply(params, x), expected, rtol=1e-4, atol=1e-5
    )
    assert np.abs(GainNorm().apply(params, x) - expected).max() > 0.1


def test_dot_attention_is_the_plain_one_with_a_louder_bias():
    cfg = dataclasses.replace(CFG, attention="dot", rotary=False)
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, 3, 16), np.float32)
    bias = rng.standard_normal((2, 3, 4), np.float32) / BIAS_GAIN
    params = jax.jit(Attention(cfg).init)(jax.random.key(0), x, bias)["params"]
    null, x64 = np.float64(params["null_kv"]), np.float64(x[0])
    q, k, v = (x64 @ np.float64(params[name]["kernel"]) for name in "qkv")
    k, v, heads = np.vstack([null[:1], k]), np.vstack([null[1:], v]), []
    for h in range(2):
        logits = q[:, 8 * h : 8 * h + 8] @ k.T / np.sqrt(8) + bias[h] * BIAS_GAIN
        logits[np.arange(4) > np.arange(3)[:, None] + 1] = -np.inf
        share = np.exp(logits - logits.max(-1, keepdims=True))
        heads.append(share / share.sum(-1, keepdims=True) @ v)
    y = np.hstack(heads) @ np.float64(params["out"]["kernel"])
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
    ours = jax.jit(Attention(cfg).apply)({"params": params}, x, bias)
    np.testing.assert_allclose(ours[0], y, rtol=1e-4, atol=1e-4)


def test_padding_and_what_exceeds_the_context_are_not_seen():
    text, params = captions(), weights(CFG)
    seen = predict(CFG, params, text)
    noisy = np.where(text.mask[..., None], text.states, 7.0)
    np.testing.assert_array_equal(
        predict(CFG, params, text._replace(states=noisy)), seen
    )
    longer = np.pad(text.states, ((0, 0), (0, 4), (0, 0)), constant_values=3.0)
    mask = np.pad(text.mask, ((0, 0), (0, 4)))
    mask[:, 6:] = True  # behind the context of 6
    whole = predict(CFG, params, text._replace(states=longer, mask=mask))
    np.testing.assert_array_equal(whole, seen)
    other = text.states.copy()
    other[2, 0] += 1
    moved = predict(CFG, params, text._replace(states=other))
    assert np.array_equal(moved[:2], seen[:2]) and not np.allclose(moved[2], seen[2])


def test_without_states_the_pooled_text_alone_conditions():
    cfg = dataclasses.replace(CFG, states=False)
    text, params = captions(), weights(CFG)
    seen = predict(cfg, params, text)
    np.testing.assert_array_equal(
        predict(cfg, params, text._replace(states=text.states + 1)), seen
    )
    assert not np.allclose(
        predict(cfg, params, text._replace(pooled=-text.pooled)), seen
    )


def test_nothing_is_known_of_a_dropped_caption_nor_of_the_noised_embedding():
    text, params = captions(), weights(CFG)
    blank = predict(CFG, params, nothing(text))
    np.testing.assert_allclose(blank, np.tile(blank[:1], (3, 1)), rtol=1e-5)
    other = predict(CFG, params, nothing(text), z=np.float32(text.pooled))
    np.testing.assert_allclose(other, blank, rtol=1e-5)
    assert not np.allclose(predict(CFG, params, nothing(text), t=9), blank)


def test_before_the_three_nulls_dropping_changed_nothing():
    cfg = dataclasses.replace(CFG, nulls=False)
    text, params = captions(), weights(cfg)
    assert "null_pooled" not in params
    np.testing.assert_array_equal(
        predict(cfg, params, text), predict(cfg, params, nothing(text))
    )


@pytest.mark.parametrize("field", ["pooled", "states"])
def test_text_of_another_clip_is_refused(field):
    text = captions()
    wide = text._replace(**{field: np.repeat(getattr(text, field), 2, axis=-1)})
    with pytest.raises(BadInput, match="32; take the CLIP"):
        predict(CFG, weights(CFG), wide)


def test_bfloat16_is_close_and_stays_finite():
    text, params = captions(), weights(CFG)
    half = predict(dataclasses.replace(CFG, dtype="bfloat16"), params, text)
    full = predict(CFG, params, text)
    assert half.dtype == np.float32
    assert np.linalg.norm(half - full) < 0.1 * np.linalg.norm(full)


Way = functools.partial(Sampling, steps="lucid5", sampler="ddim")


def draws(cfg, how, numbers=(0, 1, 2)):
    text = captions()
    keys = jnp.stack([jax.random.key(n) for n in numbers])
    caption = Text(text.pooled, text.states, text.mask)
    z = sample_z_image(weights(CFG), caption, keys, cfg=cfg, noise=NOISE, how=how)
    return np.asarray(z)


@pytest.mark.parametrize(
    "how",
    [
        Way(),
        Way(guidance=2.0),
        Way(steps="10", sampler="ancestral", candidates=1),
        Way(steps="laion4"),
    ],
)
def test_a_sample_has_unit_length_and_depends_on_its_own_key(how):
    z = draws(CFG, how)
    np.testing.assert_allclose(np.linalg.norm(z, axis=-1), 1, rtol=1e-5)
    other = draws(CFG, how, numbers=(0, 5, 2))
    np.testing.assert_allclose(other[[0, 2]], z[[0, 2]], atol=1e-5)
    assert np.abs(other[1] - z[1]).max() > 1e-3


def test_lengths_can_be_held_on_the_way():
    free = draws(CFG, Way())
    for field in ("sphere", "sphere_start"):
        held = draws(dataclasses.replace(CFG, **{field: True}), Way())
        np.testing.assert_allclose(np.linalg.norm(held, axis=-1), 1, rtol=1e-5)
        assert np.abs(held - free).max() > 1e-4


def test_a_prior_without_nulls_is_not_guided():
    with pytest.raises(BadInput, match="set its guidance to 1"):
        draws(dataclasses.replace(CFG, nulls=False), Way(guidance=1.5))
