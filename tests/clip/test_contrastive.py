"""The contrastive loss at points where its value is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.clip.contrastive import MAX_LOG_SCALE, contrastive_loss, normalised
from dalle2_jax.shard.mesh import MeshConfig, batch_sharding, make_mesh

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


def test_a_batch_on_eight_devices_is_compared_as_a_whole():
    """Loss and gradients, by sharding alone and by gathering over a mapped axis."""
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    rng = np.random.default_rng(0)
    z = [normalised(rng.normal(size=(16, 4)).astype("f")) for _ in range(2)]
    grad = jax.jit(jax.value_and_grad(lambda *z: contrastive_loss(*z, 2.0)[0], (0, 1)))

    def part(*z):
        return contrastive_loss(*z, 2.0, "parts")[0]

    def gathered(*z):
        z = [x.reshape(8, 2, 4) for x in z]
        return jnp.mean(jax.vmap(part, axis_name="parts")(*z))

    whole = grad(*z)
    spread = grad(*jax.device_put(z, batch_sharding(mesh)))
    parts = jax.jit(jax.value_and_grad(gathered, (0, 1)))(*z)
    for other in (spread, parts):
        for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(whole)):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
