"""unCLIP §4: principal components, and words written on pictures."""

import numpy as np
import pytest

from dalle2_jax.errors import BadInput
from dalle2_jax.probe.pca import principal_axes, truncated
from dalle2_jax.probe.typographic import attacked


def embeddings(n=200, d=6):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(n, d)) * np.arange(d, 0, -1) + 1).astype("f")


def test_all_components_are_the_embedding_and_none_its_mean():
    z = embeddings()
    mean, axes = principal_axes(z)
    np.testing.assert_allclose(truncated(z, mean, axes, 6), z, atol=1e-4)
    np.testing.assert_allclose(truncated(z, mean, axes, 0), mean[None].repeat(200, 0))


def test_more_components_are_never_further_away():
    z = embeddings()
    mean, axes = principal_axes(z)
    errors = [np.square(truncated(z, mean, axes, n) - z).sum() for n in range(7)]
    assert all(a > b for a, b in zip(errors, errors[1:]))
    with pytest.raises(BadInput):
        principal_axes(z[:3])


def test_words_stand_on_a_label_inside_the_picture():
    picture = np.full((64, 64, 3), 128, np.uint8)
    made = attacked(picture, "a long inscription")
    changed = np.argwhere((made != picture).any(-1))
    assert (made[32] == 255).any() and changed.min() > 0 and changed.max() < 63
