"""The autoregressive prior: who hears whom, and the cache against the full pass."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.layers.init import init_params
from dalle2_jax.layers.transformer import TransformerConfig
from dalle2_jax.prior.autoregressive import (
    Autoregressive,
    AutoregressiveConfig,
    code_loss,
    codes_of,
    draw_codes,
    example,
    with_codes,
)
from dalle2_jax.prior.codes import fit_codes
from dalle2_jax.prior.diffusion import Text, nothing

CFG = AutoregressiveConfig(
    8, 6, 12, 5, 4, 7, TransformerConfig(16, 1, 2), TransformerConfig(24, 2, 3)
)
DEEP = dataclasses.replace(CFG, decoder=TransformerConfig(24, 6, 3, remat=True))
KEYS = jax.random.split(jax.random.key(0), 4)
TEXT = Text(
    pooled=jax.random.normal(KEYS[0], (3, 8)),
    states=jax.random.normal(KEYS[1], (3, 4, 7)),
    mask=jnp.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], bool),
    keep=jnp.array([1.0, 1.0, 0.0]),
)
DOT = jnp.array([0, 4, 2])
CODES = jax.random.randint(KEYS[2], (3, 6), 0, 12)


def loud(cfg):
    """First parameters, with noise on them so that everything is heard."""
    rng = np.random.default_rng(0)
    params = init_params(Autoregressive(cfg), 0, *example(cfg))
    return jax.tree.map(
        lambda x: x + 0.2 * rng.normal(size=x.shape).astype("f"), params
    )


PARAMS = loud(CFG)


@jax.jit
def full(params, text, dot, codes):
    """Logits of all codes at once."""
    return Autoregressive(CFG).apply({"params": params}, text, dot, codes)


@jax.jit
def pull_of_code(code):
    """What the logits of one code of sample 0 hear: each input's place, z_t."""

    def at(shift, pooled):
        params = {**PARAMS, "positions": PARAMS["positions"] + shift}
        text = TEXT._replace(pooled=pooled)
        return full(params, text, DOT, CODES)[0, code].sum()

    shift = jnp.zeros_like(PARAMS["positions"])
    return jax.grad(at, (0, 1))(shift, TEXT.pooled)


@pytest.mark.parametrize("code", range(6))
def test_a_code_is_predicted_from_the_ones_before_it_alone(code):
    """The places are z_t, the dot product, codes 0 to 4."""
    places, pooled = pull_of_code(code)
    heard = jnp.any(places != 0, axis=-1)
    assert heard.tolist() == [i <= code + 1 for i in range(7)]
    assert jnp.any(pooled[0] != 0) and not jnp.any(pooled[1:] != 0)


def test_changing_a_code_changes_only_what_follows():
    before = full(PARAMS, TEXT, DOT, CODES)
    changed = CODES.at[:, 2].set((CODES[:, 2] + 5) % 12)
    apart = full(PARAMS, TEXT, DOT, changed) - before
    moved = jnp.any(jnp.abs(apart) > 1e-6, axis=(0, 2))
    assert moved.tolist() == [False, False, False, True, True, True]


def test_padding_is_not_heard_and_a_dropped_caption_not_at_all():
    def total(pooled, states, text):
        text = text._replace(pooled=pooled, states=states)
        return full(PARAMS, text, DOT, CODES).sum()

    pull = jax.jit(jax.grad(total, (0, 1)))
    pooled, states = pull(TEXT.pooled, TEXT.states, TEXT)
    heard = jnp.any(states != 0, axis=-1)
    assert heard.tolist() == [[True] * 4, [True, True, False, False], [False] * 4]
    assert not jnp.any(pooled[2] != 0)
    with_dot = [full(PARAMS, nothing(TEXT), dot, CODES) for dot in (DOT, (DOT + 1) % 5)]
    np.testing.assert_array_equal(*with_dot)


@pytest.mark.parametrize("cfg", [CFG, DEEP], ids=["unrolled", "scanned"])
def test_the_cache_gives_what_the_full_pass_gives(cfg):
    params, net = loud(cfg), Autoregressive(cfg)
    whole = net.apply({"params": params}, TEXT, DOT, CODES)

    @jax.jit
    def one_by_one(codes):
        logits, cache, mask = net.apply({"params": params}, TEXT, DOT, method="begin")

        def body(cache, scanned):
            i, token = scanned
            arguments = token, i, cache, mask
            logits, cache = net.apply({"params": params}, *arguments, method="follow")
            return cache, logits

        steps = jnp.arange(cfg.codes - 1), codes.T[:-1]
        rest = jax.lax.scan(body, cache, steps)[1]
        return jnp.concatenate([logits[None], rest]).swapaxes(0, 1)

    np.testing.assert_allclose(one_by_one(CODES), whole, rtol=1e-4, atol=1e-4)


def test_the_likeliest_codes_are_those_of_the_full_pass():
    keys = jax.random.split(KEYS[3], 3)
    ways = {"guidance": 2.0, "temperature": 0.0, "percentile": 50.0}
    drawn = jax.jit(lambda t, k: draw_codes(PARAMS, t, k, CFG, **ways))(TEXT, keys)
    assert drawn.shape == (3, 6) and drawn.dtype == jnp.int32
    found = []
    for dot in range(2, 5):  # the upper half of five buckets
        same = jnp.full(3, dot)
        with_text, without = (
            full(PARAMS, text, same, drawn) for text in (TEXT, nothing(TEXT))
        )
        guided = without + 2.0 * (with_text - without)
        found.append((jnp.argmax(guided, -1) == drawn).all(-1))
    assert jnp.stack(found).any(0).all()


def test_a_sample_follows_its_own_key_and_temperature_spreads():
    text = jax.tree.map(lambda x: jnp.repeat(x[:1], 32, axis=0), TEXT)
    keys = jax.random.split(KEYS[3], 32)
    draw = jax.jit(lambda keys, t: draw_codes(PARAMS, text, keys, CFG, temperature=t))
    cold, warm = draw(keys, 0.02), draw(keys, 5.0)
    again = draw(keys.at[1:].set(keys[0]), 5.0)
    assert (again == warm[0]).all() and not (warm == warm[0]).all()
    assert len(set(cold[:, 0].tolist())) < len(set(warm[:, 0].tolist()))


def test_first_codes_are_drawn_from_the_predicted_distribution():
    text = jax.tree.map(lambda x: jnp.repeat(x[2:], 4000, axis=0), TEXT)
    keys = jax.random.split(KEYS[3], 4000)
    drawn = jax.jit(lambda t, k: draw_codes(PARAMS, t, k, CFG))(text, keys)
    one = full(PARAMS, TEXT, DOT, CODES)[2, 0]
    counts = np.bincount(drawn[:, 0], minlength=12) / 4000
    assert np.abs(counts - jax.nn.softmax(one)).max() < 4 * 0.5 / np.sqrt(4000)


def test_cross_entropy_in_nats():
    uniform = code_loss(jnp.zeros((3, 6, 12)), CODES)
    np.testing.assert_allclose(uniform, np.log(12), rtol=1e-6)
    sure = code_loss(100 * jax.nn.one_hot(CODES, 12), CODES)
    np.testing.assert_allclose(sure, 0, atol=1e-6)


def test_the_tables_travel_with_the_parameters():
    z = jax.random.normal(KEYS[0], (50, 8))
    z = z / jnp.linalg.norm(z, axis=-1, keepdims=True)
    fitted = with_codes(CFG, PARAMS, z, jnp.roll(z, 1, axis=0))
    jax.tree.map(np.testing.assert_array_equal, codes_of(fitted), fit_codes(z, 6, 12))
    assert {k: np.shape(v) for k, v in fitted.items() if k not in PARAMS} == {}
    assert np.shape(fitted["dot_edges"]) == (4,)
