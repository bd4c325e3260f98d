"""The aesthetic probe: known weights come back; tables of ratings, good and bad."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.aesthetics import fit, load, predict, save
from dalle2_jax.evaluate.ratings import read_ratings


def made(n=200, noise=0.0, seed=0):
    """Unit embeddings, ratings linear in them, and the weights."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 8))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    weight = np.arange(8.0) - 3
    return z, z @ weight + 5 + noise * rng.normal(size=n), weight


def test_a_linear_rating_is_found_again():
    z, rating, weight = made()
    probe, share = fit(z, rating)
    np.testing.assert_allclose(probe.weight, weight, atol=0.01)
    assert probe.bias == pytest.approx(5, abs=0.01) and share > 0.9999
    np.testing.assert_allclose(predict(probe, z), rating, atol=0.01)


def test_left_out_ratings_are_those_of_refits():
    z, rating, _ = made(20, noise=1.0)
    share = fit(z, rating)[1]
    noise = np.random.default_rng(1).permutation(rating)
    assert fit(z, noise)[1] < share < 1
    assert fit(z, noise)[1] < 0.2  # nothing is learned from ratings of other pictures


def test_a_probe_is_read_from_every_kind_of_file(tmp_path):
    z, rating, _ = made()
    probe, _ = fit(z, rating)
    save(tmp_path / "probe.npz", probe)
    layer = {
        "weight": probe.weight[None].astype("f"),
        "bias": np.array([probe.bias], "f"),
    }
    save_file(layer, tmp_path / "probe.safetensors")
    for name in ("probe.npz", "probe.safetensors"):
        np.testing.assert_allclose(predict(load(tmp_path / name), z), rating, atol=0.01)
    np.savez(tmp_path / "other.npz", weight=np.ones((2, 8)), bias=np.ones(2))
    with pytest.raises(BadInput, match="no aesthetic probe"):
        load(tmp_path / "other.npz")
    cut = (tmp_path / "probe.npz").read_bytes()[:-40]
    (tmp_path / "cut.npz").write_bytes(cut)
    with pytest.raises(BadInput, match="cut.npz is no .npz file of plain arrays"):
        load(tmp_path / "cut.npz")
    with pytest.raises(BadInput, match="width 8, this CLIP's have 5"):
        predict(probe, np.ones((2, 5)))
    with pytest.raises(BadInput, match="3 or more ratings that differ"):
        fit(z, np.ones(200))


def test_tables_of_embeddings_and_of_pictures(tmp_path):
    z, rating, _ = made(6)
    np.save(tmp_path / "a.npy", np.c_[z, rating])
    np.savez(tmp_path / "a.npz", embedding=z, rating=rating)
    table = pa.table({"embedding": [list(row) for row in z], "rating": rating})
    pq.write_table(table, tmp_path / "a.parquet")
    for name in ("a.npy", "a.npz", "a.parquet"):
        found = read_ratings(tmp_path / name)
        np.testing.assert_allclose(found.embeddings, z, rtol=1e-6)
        np.testing.assert_allclose(found.rating, rating, rtol=1e-6)
    (tmp_path / "a.csv").write_text("image,score\nx/1.png,4.5\n2.png,6\n")
    found = read_ratings(tmp_path / "a.csv")
    assert found.rating.tolist() == [4.5, 6]
    assert found.paths == [tmp_path / "x/1.png", tmp_path / "2.png"]


def test_the_list_of_ava_gives_mean_ratings(tmp_path):
    path = tmp_path / "AVA.txt"
    path.write_text("1 953619 0 1 5 17 38 36 15 6 5 1 1 22 1396\n")
    found = read_ratings(path, tmp_path / "images")
    counts = np.array([0, 1, 5, 17, 38, 36, 15, 6, 5, 1])
    assert found.rating[0] == pytest.approx((counts @ range(1, 11)) / 124)
    assert found.paths == [tmp_path / "images/953619.jpg"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "image,beauty\n1.png,4\n", "no column `rating`"),
        ("a.csv", "name,rating\n1.png,4\n", "no column `image` or `embedding`"),
        ("a.csv", "image,rating\n1.png,nan\n", "row 0 has no finite rating"),
        ("a.csv", "image,rating\n1.png,good\n", "cannot be read as ratings"),
        ("a.npy", "no array", "cannot be read as ratings"),
        ("a.doc", "", "no table of ratings"),
        ("AVA.txt", "1 2 3\n", "AVA has 12"),
    ],
)
def test_other_tables_are_refused(name, text, said, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=said):
        read_ratings(tmp_path / name)
    with pytest.raises(BadInput, match="cannot be read"):
        read_ratings(tmp_path / "absent.csv")
