"""Sets of pictures: read as they are, fitted by rule, refused in one sentence."""

import numpy as np
import pytest
from PIL import Image

from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.pictures import decoded, fitted, folder_pictures, open_pictures

RNG = np.random.default_rng(0)


def picture(y, x):
    return RNG.integers(0, 256, (y, x, 3), dtype=np.uint8)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def test_folders_and_arrays_give_the_same_bytes(tmp_path):
    images = np.stack([picture(8, 8) for _ in range(5)])
    for i, image in enumerate(images):
        save(tmp_path / "set" / str(i % 2) / f"{i}.png", image)
    np.savez(tmp_path / "set.npz", arr_0=images[[0, 2, 4, 1, 3]])
    folder, array = (open_pictures(tmp_path / name) for name in ("set", "set.npz"))
    assert folder.count == array.count == 5
    assert np.array_equal(folder.fetch(range(5)), array.fetch(range(5)))
    assert np.array_equal(folder.fetch([3]), images[[1]])


def test_shards_bring_their_captions(shards):
    found = open_pictures(shards[0].parent, size=16)
    assert found.count == 256 == len(found.captions)
    assert found.fetch([0, 255]).shape == (2, 16, 16, 3)


def test_crops():
    image = Image.fromarray(np.repeat(picture(1, 40), 20, axis=0))  # 40 wide, 20 high
    centre = np.asarray(fitted(image, 20))
    assert np.array_equal(centre, np.asarray(image)[:, 10:30])
    squeezed = np.asarray(image.resize((10, 10), Image.Resampling.BICUBIC))
    assert np.array_equal(np.asarray(fitted(image, 10, "squeeze")), squeezed)
    small = image.resize((20, 10), Image.Resampling.BICUBIC).crop((5, 0, 15, 10))
    assert np.array_equal(np.asarray(fitted(image, 10)), np.asarray(small))


def test_what_has_the_size_keeps_its_bytes(tmp_path):
    image = picture(16, 16)
    save(tmp_path / "a.png", image)
    data = (tmp_path / "a.png").read_bytes()
    assert np.array_equal(decoded(data, "a", 16), image)
    assert np.array_equal(decoded(data, "a"), image)


def test_bad_sets_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(BadInput, match="is no folder of pictures"):
        open_pictures(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no pictures"):
        open_pictures(tmp_path / "empty")
    save(tmp_path / "mixed" / "0.png", picture(8, 8))
    save(tmp_path / "mixed" / "1.png", picture(8, 9))
    mixed = folder_pictures(tmp_path / "mixed")
    with pytest.raises(BadInput, match="picture 1 of mixed is 9x8, the first 8x8; giv"):
        mixed.fetch([0, 1])
    assert folder_pictures(tmp_path / "mixed", 4).fetch([0, 1]).shape == (2, 4, 4, 3)
    whole = (tmp_path / "mixed" / "0.png").read_bytes()
    with pytest.raises(BadInput, match="x is damaged or cut off"):
        decoded(whole[: len(whole) // 2], "x")
    with pytest.raises(BadInput, match="x is no picture in a known format"):
        decoded(b"words", "x")


@pytest.mark.parametrize(
    "arrays, said",
    [
        ({"arr_0": np.zeros((2, 4, 4, 3))}, "it has float64 .2, 4, 4, 3."),
        ({"mu": np.zeros(3)}, "it has none"),
    ],
)
def test_arrays_that_are_no_pictures(tmp_path, arrays, said):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(BadInput, match=said):
        open_pictures(tmp_path / "a.npz")


def test_files_that_are_no_arrays(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"words")
    with pytest.raises(BadInput, match="is no .npz file of plain arrays"):
        open_pictures(path)
    np.savez(path, arr_0=np.array([{}], dtype=object))
    with pytest.raises(BadInput, match="is no .npz file of plain arrays"):
        open_pictures(path)
