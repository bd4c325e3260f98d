"""Attention: where a mask lets it look, and that it is a mean of values."""

import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.layers.attention import attend, causal

Q, K, V = jax.random.normal(jax.random.key(0), (3, 2, 5, 3, 8))


def test_a_causal_mask_looks_only_back():
    pull = jax.grad(lambda v: attend(Q, K, v, causal(5))[0, 2].sum())(V)
    assert jnp.all(pull[0, 3:] == 0)
    assert jnp.all(pull[0, :3] != 0)
    assert jnp.all(pull[1] == 0)


def test_equal_values_come_back_whatever_the_weights():
    ones = jnp.broadcast_to(V[:, :1], V.shape)
    np.testing.assert_allclose(attend(Q, K, ones), ones, atol=1e-6)


def test_masked_keys_might_as_well_not_be_there():
    mask = jnp.arange(5)[None, None, None] < 3
    np.testing.assert_allclose(
        attend(Q, K, V, mask), attend(Q, K[:, :3], V[:, :3]), atol=1e-6
    )


def test_bfloat16_has_float32_weights():
    half = [a.astype(jnp.bfloat16) for a in (Q, K, V)]
    assert attend(*half).dtype == jnp.bfloat16
    np.testing.assert_allclose(
        attend(*half).astype(jnp.float32), attend(Q, K, V), atol=0.03
    )
