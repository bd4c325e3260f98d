"""Codes of z_i: PCA against NumPy's SVD, buckets, dot products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.errors import BadInput
from dalle2_jax.prior.codes import (
    decode,
    dot_token,
    draw_dots,
    encode,
    fit_codes,
    fit_dots,
    quality,
)

RNG = np.random.default_rng(0)
SPREAD = np.array([4.0, 2.0, 1.0, 0.5, 0.1, 0.05])
TURN = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
Z = (RNG.normal(size=(4000, 6)) * SPREAD) @ TURN + 3.0


def test_axes_are_the_singular_vectors_by_decreasing_variance():
    codes = fit_codes(Z, 4, 32)
    _, singular, vectors = np.linalg.svd(Z - Z.mean(0), full_matrices=False)
    overlap = np.abs(np.sum(codes.axes * vectors[:4], axis=1))
    np.testing.assert_allclose(overlap, 1, atol=1e-5)
    explained, _ = quality(codes, Z)
    wanted = singular**2 / np.sum(singular**2)
    np.testing.assert_allclose(explained, wanted[:4], rtol=1e-4)


def test_the_error_is_what_pca_drops_and_what_the_buckets_lose():
    whole = fit_codes(Z, 6, 1024)
    assert quality(whole, Z)[1] < 1e-4
    explained, error = quality(fit_codes(Z, 3, 1024), Z)
    np.testing.assert_allclose(error, 1 - explained.sum(), rtol=0.02)
    coarse = [quality(fit_codes(Z, 6, buckets), Z)[1] for buckets in (8, 16, 32)]
    assert coarse[0] > 3 * coarse[1] > 9 * coarse[2]  # a quarter each, but for tails


def test_a_centre_is_its_own_bucket_and_the_tails_are_in_the_outermost():
    codes = fit_codes(Z, 4, 1024)
    tokens = jax.random.randint(jax.random.key(0), (200, 4), 0, 1024)
    np.testing.assert_array_equal(encode(codes, decode(codes, tokens)), tokens)
    far = codes.mean + 1e3 * codes.axes[0]
    assert encode(codes, far)[0] == 1023 and encode(codes, -far)[0] == 0
    assert encode(codes, Z).dtype == jnp.int32


def test_fitting_is_deterministic_and_has_no_sign_of_its_own():
    a, b = fit_codes(Z, 4, 32), fit_codes(Z.copy(), 4, 32)
    jax.tree.map(np.testing.assert_array_equal, a, b)
    largest = np.abs(a.axes).argmax(1)
    assert (a.axes[np.arange(4), largest] > 0).all()


@pytest.mark.parametrize("z, count", [(Z[:4], 4), (Z, 7)])
def test_too_little_to_fit_is_refused(z, count):
    with pytest.raises(BadInput, match="config.codes_from"):
        fit_codes(z, count, 8)


def test_dot_tokens_are_percentiles_and_drawn_from_the_upper_part():
    unit = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    other = np.roll(unit, 1, axis=0)
    edges = fit_dots(unit, other, 50)
    tokens = dot_token(edges, jnp.asarray(unit, "f"), jnp.asarray(other, "f"))
    counts = np.bincount(tokens, minlength=50)
    assert len(counts) == 50 and np.ptp(counts) <= 4
    keys = jax.random.split(jax.random.key(0), 3000)
    for percentile, least in ((50, 25), (95, 47), (0, 0)):
        drawn = np.asarray(draw_dots(keys, 50, percentile))
        assert drawn.min() == least and drawn.max() == 49
        middle = (least + 49) / 2
        assert abs(drawn.mean() - middle) < 1
