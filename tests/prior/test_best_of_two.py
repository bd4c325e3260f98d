"""Of several draws the one closest to the caption is kept, per caption."""

import jax.numpy as jnp
import numpy as np

from dalle2_jax.prior.best_of_two import closest


def test_each_caption_keeps_its_own_closest():
    z_text = jnp.eye(3)
    good, bad = jnp.eye(3), -jnp.eye(3)
    first = jnp.stack([good[0], bad[1], good[2]])
    second = jnp.stack([bad[0], good[1], bad[2]])
    kept = closest(jnp.stack([first, second]), z_text)
    np.testing.assert_array_equal(kept, jnp.eye(3))


def test_one_candidate_is_kept_as_it_is():
    z = jnp.arange(6.0).reshape(1, 2, 3)
    np.testing.assert_array_equal(closest(z, jnp.ones((2, 3))), z[0])
