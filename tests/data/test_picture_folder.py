"""Folders of pictures with their captions beside them, read as shards."""

import io
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from dalle2_jax.data.batches import captioned_batches
from dalle2_jax.data.lazy_shards import LazyShards
from dalle2_jax.data.picture_folder import captions_beside
from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.shard_index import beside, publish
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.errors import BadInput
from dalle2_jax.train.run import Data

TOKENIZER = Tokenizer.train(["number 0 1 2 3 4 5 6 7 8 9"], 600)


def png(shade):
    out = io.BytesIO()
    Image.fromarray(np.full((20, 16, 3), shade, np.uint8)).save(out, "PNG")
    return out.getvalue()


def write(folder, numbers):
    """img2dataset's `files`: KEY.jpg, KEY.txt and KEY.json for each number."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in numbers:
        (folder / f"{i:05d}.png").write_bytes(png(i))
        (folder / f"{i:05d}.txt").write_text(f"number {i}")
        (folder / f"{i:05d}.json").write_text(json.dumps({"width": 16 + i}))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Two folders of img2dataset, with its tables and what systems leave behind."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    home = tmp_path / "set"
    write(home / "00000", range(6))
    write(home / "00001", range(6, 12))
    (home / "00000_stats.json").write_text("{}")
    (home / "00000" / "README.txt").write_text("about")
    (home / "00000" / "._00001.png").write_bytes(b"fork")
    (home / "empty").mkdir()
    return home


@pytest.mark.parametrize("kind", [ShardSource, LazyShards])
def test_every_picture_has_its_own_caption(home, kind):
    source = kind(home)
    assert source.shards == [str(home / "00000"), str(home / "00001")]
    pairs = []
    for shard in range(2):
        for row in range(source.size_of(shard)):
            record = source[source.first_of(shard) + row]
            pairs.append((record.caption, record.image))
            assert record.meta["width"] == 16 + int(record.key)
    assert pairs == [(f"number {i}", png(i)) for i in range(12)]
    again = pickle.loads(pickle.dumps(source))
    assert again[0].image == png(0)


def test_batches_and_filters_of_a_folder(home):
    data = Data(16, 12, threads=2, keep=("width>=20",))
    source = ShardSource(home, keep=data.keep)
    assert len(source) == 8 and source.dropped == {"not width>=20": 4}
    batch = next(captioned_batches(source, TOKENIZER, data, 8, 0))
    shades = sorted(int(image[0, 0, 0]) for image in batch.image)
    assert shades == list(range(4, 12))
    for image, ids in zip(batch.image, batch.tokens):
        said = "".join(TOKENIZER.decode(ids).split()[1:])
        assert int(said) == image[0, 0, 0]


def test_nothing_is_written_among_the_pictures_unless_asked(home, monkeypatch):
    before = sorted(home.rglob("*"))
    assert len(ShardSource(home)) == 12 and sorted(home.rglob("*")) == before
    publish(str(home / "00000"))
    assert beside(home / "00000").is_file()
    monkeypatch.setattr("dalle2_jax.data.shard_index.build_index", None)
    assert len(ShardSource(home)) == 12


def test_files_that_change_are_noticed(home):
    source = ShardSource(home)
    write(home / "00000", [99])
    with pytest.raises(BadInput, match="00000"):
        source[0]
    assert len(ShardSource(home)) == 13
    source = ShardSource(home)
    assert source[0].image == png(0)
    (home / "00000" / "00001.png").write_bytes(b"shorter")
    with pytest.raises(BadInput, match=r"00001.png"):
        source[1]


def test_names_with_dots_and_letters_of_any_kind(tmp_path):
    for name in ("photo_v1.0", "photo_v1.1", "写真\u3000一", "A B"):
        (tmp_path / f"{name}.JPEG").write_bytes(png(1))
        (tmp_path / f"{name}.txt").write_text(name, encoding="utf-8")
    source = ShardSource(tmp_path)
    assert {r.key for r in source} == {r.caption for r in source}
    assert len(source) == 4 and not source.problems


def test_pictures_without_captions_are_counted(tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    with pytest.raises(BadInput, match="no caption: 1"):
        ShardSource(tmp_path)
    (tmp_path / "b.png").write_bytes(png(1))
    (tmp_path / "b.json").write_text('{"caption": "said"}')
    source = ShardSource(tmp_path)
    assert [r.caption for r in source] == ["said"]
    assert source.problems == {"no caption": 1}


def test_captions_beside_all_pictures_or_none(tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(2)]
    for i, path in enumerate(files):
        path.write_bytes(png(1))
        path.with_suffix(".txt").write_text(f"number {i}\n", encoding="utf-16")
    assert captions_beside(files) == ["number 0", "number 1"]
    files[1].with_suffix(".txt").write_text("\u200b")
    assert captions_beside(files) is None and captions_beside([]) is None
