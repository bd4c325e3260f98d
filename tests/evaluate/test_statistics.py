"""Statistics: ours come back, those of other packages are read, others are refused."""

import numpy as np
import pytest

from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.features import Extractor
from dalle2_jax.evaluate.frechet import frechet_distance, moments
from dalle2_jax.evaluate.protocol import Protocol
from dalle2_jax.evaluate.scores import need_reference, taken
from dalle2_jax.evaluate.statistics import (
    Side,
    moments_of,
    read_statistics,
    write_statistics,
)

RNG = np.random.default_rng(0)
PROTOCOL = Protocol(size=8)
INCEPTION = Extractor("inception-2015-12-05", None, "legacy_tf", "aa")
CLIP = Extractor("CLIP of model", None, "its own", "bb")


def side(n=60, d=6, shift=0.0):
    pool = (RNG.normal(size=(n, d)) + shift).astype("f")
    return Side(n, {"pool": pool, "spatial": pool[:, :4]}, {}, {"name": "set"})


def test_ours_come_back(tmp_path):
    path, reference, samples = tmp_path / "a.npz", side(), side(shift=1.0)
    write_statistics(path, reference, CLIP, PROTOCOL)
    found = read_statistics(path, CLIP, PROTOCOL)
    assert found.count == 60 and found.facts["n"] == 60
    assert found.facts["name"] == "set" and len(found.facts["sha256"]) == 64
    for name in ("fid", "kid", "precision"):
        assert np.isclose(
            taken(name, samples, found)[0], taken(name, samples, reference)[0], 1e-12
        )
    assert np.isclose(
        frechet_distance(moments_of(found, "spatial"), moments_of(samples, "spatial")),
        frechet_distance(
            moments_of(reference, "spatial"), moments_of(samples, "spatial")
        ),
        rtol=1e-10,
    )
    with np.load(path) as file:
        assert file["mu"].dtype == file["sigma"].dtype == np.float64
        assert np.allclose(file["sigma"], np.cov(reference.features["pool"].T))


@pytest.mark.parametrize(
    "extractor, protocol, field",
    [
        (CLIP._replace(sha256="cc"), PROTOCOL, "features_sha256"),
        (CLIP._replace(resize="clean"), PROTOCOL, "resize"),
        (CLIP, Protocol(size=16), "size"),
        (CLIP, Protocol(size=8, crop="squeeze"), "crop"),
    ],
)
def test_other_protocols_are_refused(tmp_path, extractor, protocol, field):
    write_statistics(tmp_path / "a.npz", side(), CLIP, PROTOCOL)
    with pytest.raises(BadInput, match=f"was made with {field}"):
        read_statistics(tmp_path / "a.npz", extractor, protocol)


def test_files_of_other_packages(tmp_path):
    x = side().features["pool"]
    mu, sigma = x.astype(float).mean(0), np.cov(x.T)
    np.savez(tmp_path / "edm.npz", mu=mu, sigma=sigma)
    np.savez(tmp_path / "adm.npz", mu=mu, sigma=sigma, mu_s=mu[:3], sigma_s=np.eye(3))
    np.savez(tmp_path / "clean_kid.npz", feats=x)
    for name in ("edm", "adm"):
        found = read_statistics(tmp_path / f"{name}.npz", INCEPTION, PROTOCOL)
        distance = frechet_distance(moments_of(found, "pool"), moments(x))
        assert abs(distance) < 1e-9 and found.facts["n"] is None
        with pytest.raises(BadInput, match=f"kid needs pool features .* {name}.npz"):
            need_reference("kid", found)
    assert found.moments["spatial"].mean.shape == (3,)
    found = read_statistics(tmp_path / "clean_kid.npz", INCEPTION, PROTOCOL)
    assert np.array_equal(found.features["pool"], x) and found.count == 60
    with pytest.raises(BadInput, match="names no protocol, so it is taken"):
        read_statistics(tmp_path / "edm.npz", CLIP, PROTOCOL)


@pytest.mark.parametrize(
    "arrays, said",
    [
        ({"mu": np.zeros(3), "sigma": np.zeros((2, 2))}, "are no mean and covariance"),
        ({"mu": np.zeros(3)}, "are no mean and covariance"),
        ({"mu": np.zeros(2), "sigma": np.full((2, 2), np.nan)}, "are not finite"),
        ({"x": np.zeros(3)}, "holds neither mu and sigma nor feats"),
        ({"mu": np.zeros(3), "protocol": "words"}, "protocol is no JSON object"),
    ],
)
def test_broken_files(tmp_path, arrays, said):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(BadInput, match=said):
        read_statistics(tmp_path / "a.npz", INCEPTION, PROTOCOL)


def test_features_of_another_size_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.eye(3))
    found = read_statistics(tmp_path / "a.npz", INCEPTION, PROTOCOL)
    with pytest.raises(BadInput, match="different sizes"):
        taken("fid", side(), found)
