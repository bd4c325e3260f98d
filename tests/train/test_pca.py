"""Tables of the priors fitted to stored embeddings."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from dalle2_jax.cli.overrides import load_run
from dalle2_jax.components import initial_params
from dalle2_jax.data.embeddings import EmbeddingSource
from dalle2_jax.errors import BadInput
from dalle2_jax.prior.codes import fit_codes, quality
from dalle2_jax.train.pca import (
    Sizes,
    check_tables,
    fit_file,
    moments_of,
    read_tables,
    save_tables,
    with_tables,
)

RNG = np.random.default_rng(0)
SIZES = Sizes(6, 16, 16)
SMALL = ["model.clip=12", "model.codes=6", "model.buckets=16", "model.dots=16"]
SMALL += ["model.decoder.depth=1"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Two parts of unit vectors that vary more along some axes."""
    folder = tmp_path_factory.mktemp("emb")
    for number, n in ((0, 300), (1, 111)):
        for name in ("img_emb", "text_emb"):
            z = RNG.standard_normal((n, 12)) * np.linspace(2, 0.1, 12) + 0.3
            z /= np.linalg.norm(z, axis=1, keepdims=True)
            np.save(folder / f"{name}_{number}.npy", z.astype(np.float32))
    return EmbeddingSource(folder)


def test_moments_in_chunks_are_those_of_the_whole():
    z = RNG.standard_normal((500, 5)) + 1000
    parts = np.split(z, [7, 8, 300])
    found = moments_of(parts)
    assert found.count == 500
    np.testing.assert_allclose(found.mean, z.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(z.T), atol=1e-12)


def test_the_file_holds_the_codes_of_all_rows(source, tmp_path):
    tables, about = fit_file(source, True, SIZES, "abc")
    z = np.concatenate([z for z, _ in source.chunks(1000)])
    codes = fit_codes(z, 6, 16)
    np.testing.assert_allclose(tables["codes_axes"], codes.axes, atol=1e-5)
    np.testing.assert_allclose(tables["codes_centres"], codes.centres, atol=1e-5)
    np.testing.assert_allclose(tables["clip_std"], z.std(0, ddof=1), rtol=1e-5)
    assert about["rows"] == 411 and about["explained"] > 0.8
    assert about["lost"] == pytest.approx(quality(codes, z)[1], rel=1e-3)
    save_tables(tmp_path / "to" / "pca.safetensors", tables, about)
    again, said = read_tables(tmp_path / "to" / "pca.safetensors")
    assert said == about and set(again) == set(tables)


def test_a_sample_bounds_the_buckets_of_a_large_set(source):
    few = fit_file(source, True, Sizes(6, 16, 16, sample=100))[0]
    every = fit_file(source, True, SIZES)[0]
    np.testing.assert_array_equal(few["codes_axes"], every["codes_axes"])
    wide = np.ptp(every["codes_centres"], axis=1)
    assert np.all(np.ptp(few["codes_centres"], axis=1) <= wide)
    with pytest.raises(BadInput, match="7 components cannot be fitted to 6 embedd"):
        fit_file(source, True, Sizes(7, sample=6))


def prior(path, *changes):
    words = [f"--config.{word}" for word in (*SMALL, f"codes='{path}'", *changes)]
    return load_run("configs/prior_autoregressive.py:small", words)


def test_a_prior_begins_from_the_file(source, tmp_path):
    path = tmp_path / "pca.safetensors"
    tables, about = fit_file(source, True, SIZES, "abc")
    save_tables(path, tables, about)
    run = prior(path)
    first = initial_params(run.stage, run.model, 0)
    params = with_tables(run, first)
    np.testing.assert_array_equal(params["codes_share"], tables["codes_share"])
    np.testing.assert_array_equal(params["dot_edges"], tables["dot_edges"])
    words = ["model.clip=12", "model.whiten=True", f"codes='{path}'"]
    words = [f"--config.{word}" for word in words]
    white = load_run("configs/prior_diffusion.py:small", words)
    params = with_tables(white, initial_params(white.stage, white.model, 0))
    np.testing.assert_array_equal(params["clip_mean"], tables["clip_mean"])


def test_a_file_that_does_not_fit_is_refused(source, tmp_path):
    path = tmp_path / "pca.safetensors"
    tables, about = fit_file(source, True, SIZES, "abc")
    save_tables(path, tables, about)
    check_tables(path, "abc")
    with pytest.raises(BadInput, match="another CLIP .SHA-256 abc"):
        check_tables(path, "abd")
    run = prior(path, "model.codes=5")
    with pytest.raises(BadInput, match=r"codes_axes is \[6, 12\].*asks for \[5, 12\]"):
        with_tables(run, initial_params(run.stage, run.model, 0))
    del tables["dot_edges"]
    save_tables(path, tables, about)
    run = prior(path)
    with pytest.raises(BadInput, match="holds no dot_edges"):
        with_tables(run, initial_params(run.stage, run.model, 0))
    save_file(tables, path)
    for wrong in (path, tmp_path / "nothing"):
        with pytest.raises(BadInput, match="no readable file of `dalle2 data fit-pca`"):
            read_tables(wrong)
    with pytest.raises(BadInput, match="config.codes is 'x'"):
        load_run("configs/clip.py:small", ["--config.codes='x'"])
