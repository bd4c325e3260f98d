"""The contrastive loss at points where its value is known."""

import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.clip.contrastive import MAX_LOG_SCALE, contrastive_loss, normalised

EYE = jnp.eye(6)


@pytest.mark.parametrize("log_scale", [0.0, 1.0, 2.0])
def test_orthogonal_pairs_have_the_known_loss(log_scale):
    loss, metrics = contrastive_loss(EYE, EYE, jnp.float32(log_scale))
    expected = np.log(1 + 5 * np.exp(-np.exp(log_scale)))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert metrics["image_to_text"] == metrics["text_to_image"] == 1


def test_a_mixed_up_batch_retrieves_nothing():
    loss, metrics = contrastive_loss(EYE, jnp.roll(EYE, 1, axis=0), jnp.float32(3.0))
    assert metrics["image_to_text"] == metrics["text_to_image"] == 0
    assert loss > np.exp(3.0)


def test_embeddings_that_say_nothing_cost_the_logarithm_of_the_batch():
    same = jnp.broadcast_to(EYE[0], EYE.shape)
    loss, _ = contrastive_loss(same, same, jnp.float32(1.0))
    np.testing.assert_allclose(loss, np.log(6), rtol=1e-6)


def test_the_scale_never_exceeds_100():
    at = contrastive_loss(EYE, EYE[::-1], jnp.float32(MAX_LOG_SCALE))
    above = contrastive_loss(EYE, EYE[::-1], jnp.float32(MAX_LOG_SCALE + 3))
    np.testing.assert_allclose(at[0], above[0])
    np.testing.assert_allclose(above[1]["scale"], 100, rtol=1e-5)


def test_normalised_survives_zero():
    z = normalised(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(z, [[0.6, 0.8], [0, 0]], atol=1e-6)
