"""A whitening layer starts with what its name says."""

import numpy as np

from dalle2_jax.train.whiten import pca_whitening


def test_whitened_vectors_have_no_mean_and_unit_covariance():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4000, 4)) @ rng.normal(size=(4, 4)) + 3
    layer = pca_whitening(z)
    out = z @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-4)
    covariance = np.cov(out, rowvar=False)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-4)
    assert np.diag(covariance).max() <= 1.001 and np.diag(covariance)[-1] > 0.97


def test_directions_without_variance_are_not_blown_up():
    z = np.random.default_rng(1).normal(size=(500, 3)) * [1, 1, 1e-6]
    out = z @ pca_whitening(z)["kernel"]
    assert np.abs(out).max() < 10 and np.std(out, axis=0).min() < 1e-3
