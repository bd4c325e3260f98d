"""The noisy classifier: probabilities, and the gradient that guides."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.decoder.classifier import (
    Classifier,
    ClassifierConfig,
    example,
    gradient,
    log_prob,
)
from dalle2_jax.layers.init import init_params
from dalle2_jax.layers.unet import UNetConfig

UNET = UNetConfig(8, (1, 2), 1, (2,), head_width=8, groups=4, out_channels=5)
CFG = ClassifierConfig(8, UNET)
X = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
T = jnp.array([3, 700])
LABEL = jnp.array([1, 4])
PARAMS = jax.tree.map(
    lambda a: a + 0.1 * jnp.cos(jnp.arange(a.size)).reshape(a.shape),
    init_params(Classifier(CFG), 0, *example(CFG)),
)


push = jax.jit(gradient(CFG, PARAMS, LABEL, 2.0))
score = jax.jit(functools.partial(log_prob, CFG, PARAMS))


def test_labels_have_probabilities():
    each = [score(X, T, jnp.full(2, label)) for label in range(5)]
    np.testing.assert_allclose(np.exp(each).sum(0), 1, rtol=1e-5)


def test_the_gradient_is_that_of_the_scaled_log_probability():
    direction = jax.random.normal(jax.random.key(1), X.shape)
    step = 1e-2 * direction
    slope = 2.0 * (score(X + step, T, LABEL) - score(X - step, T, LABEL)) / 2e-2
    found = (push(X, T) * direction).sum((1, 2, 3))
    np.testing.assert_allclose(found, slope, rtol=1e-2)


def test_the_pool_hears_every_pixel_and_the_time():
    assert jnp.all(jnp.any(push(X, T) != 0, axis=-1))
    assert jnp.all(score(X, T + 100, LABEL) != score(X, T, LABEL))


def test_a_size_that_cannot_be_halved_is_refused():
    with pytest.raises(AssertionError, match="multiple of 2"):
        ClassifierConfig(9, UNET)
