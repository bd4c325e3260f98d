"""The text tower: causal, and its vector stands where the caption ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.clip.text import TextTower, TextTowerConfig, end_positions
from dalle2_jax.layers.init import init_params

CFG = TextTowerConfig(12, 6, 16, 2, 2)
TOKENS = jnp.array([[10, 1, 2, 3, 11, 0], [10, 4, 11, 0, 0, 0]])
PARAMS = init_params(TextTower(CFG, 8), 0, TOKENS)


def states(params, tokens=TOKENS, mask=None):
    return TextTower(CFG, 8).apply({"params": params}, tokens, mask)


def test_no_state_hears_a_later_token():
    def third(params):
        return jnp.sum(states(params).states[0, 2] * jnp.arange(16))

    pull = jax.jit(jax.grad(third))(PARAMS)["tokens"]["embedding"]
    heard = {int(i) for i in jnp.flatnonzero(jnp.any(pull != 0, axis=1))}
    assert heard == {10, 1, 2}


def test_padding_does_not_reach_the_caption():
    other = TOKENS.at[1, 3:].set(5)
    np.testing.assert_allclose(
        states(PARAMS).pooled, states(PARAMS, other).pooled, atol=1e-6
    )


def test_mask_hides_a_token_from_those_behind_it():
    mask = jnp.ones((2, 6), bool).at[0, 1].set(False)
    changed = TOKENS.at[0, 1].set(7)
    a, b = (states(PARAMS, tokens, mask).pooled for tokens in (TOKENS, changed))
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(("pool", "end_id"), [("argmax", -1), ("end", 11)])
def test_pooled_position_is_the_end_mark(pool, end_id):
    cfg = TextTowerConfig(12, 6, 16, 2, 2, pool=pool, end_id=end_id)
    np.testing.assert_array_equal(end_positions(cfg, TOKENS), [4, 2])


def test_the_first_end_mark_counts_where_padding_is_the_same_id():
    cfg = TextTowerConfig(12, 6, 16, 2, 2, pool="end", end_id=11)
    padded = jnp.where(TOKENS == 0, 11, TOKENS)
    np.testing.assert_array_equal(end_positions(cfg, padded), [4, 2])


def test_pool_end_without_an_id_is_refused():
    with pytest.raises(AssertionError, match="end_id"):
        TextTowerConfig(12, 6, 16, 2, 2, pool="end")
