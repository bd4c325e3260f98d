"""Folders of embeddings: rows that line up, what is left out, the order of batches."""

import json
import os
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dalle2_jax.cli.overrides import load_run
from dalle2_jax.data.embedding_index import build_table
from dalle2_jax.data.embeddings import (
    EmbeddingSource,
    embedding_batches,
    is_embeddings,
    parts_of,
)
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.errors import BadInput

TOKENIZER = Tokenizer.train(["caption 0 1 2 3 4 5 6 7 8 9"], 600)
RNG = np.random.default_rng(0)


def unit(n, width=8):
    z = RNG.standard_normal((n, width))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def write_part(folder, number, image, text=None, captions=None, column="caption"):
    """One part in clip-retrieval's layout."""
    arrays = {"img_emb": image, "text_emb": text}
    for name, rows in arrays.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        if rows is not None:
            np.save(folder / name / f"{name}_{number}.npy", rows)
    if captions is not None:
        (folder / "metadata").mkdir(exist_ok=True)
        table = pa.table({"image_path": captions, column: captions})
        pq.write_table(table, folder / "metadata" / f"metadata_{number}.parquet")


@pytest.fixture
def folder(tmp_path):
    """Two parts, 30 + 12 rows, of which three are broken."""
    for number, n in ((2, 30), (10, 12)):
        image = unit(n).astype(np.float16)
        captions = [f"caption {number} {row}" for row in range(n)]
        if number == 2:
            image[3], image[4, 0], captions[5] = 0, np.nan, " "
        write_part(tmp_path, number, image, unit(n), captions)
    return tmp_path


def test_rows_of_the_parts_stand_one_after_another(folder):
    source = EmbeddingSource(folder)
    assert [part.image.name for part in source.parts] == [
        "img_emb_2.npy",
        "img_emb_10.npy",
    ]
    assert len(source) == 39 and source.width == 8 and source.is_unit
    image = np.load(folder / "img_emb" / "img_emb_10.npy")
    text = np.load(folder / "text_emb" / "text_emb_10.npy")
    row = source[27 + 5]
    np.testing.assert_array_equal(row.z_image, image[5].astype(np.float32))
    np.testing.assert_array_equal(row.z_text, text[5].astype(np.float32))
    assert row.caption == "caption 10 5" and source.name(32).endswith("10.npy: row 5")
    assert list(source.captions())[3] == "caption 2 6"


def test_broken_rows_are_left_out_and_counted(folder):
    assert EmbeddingSource(folder).problems == {
        "all-zero row": 1,
        "value that is not finite": 1,
        "no caption": 1,
    }


def test_chunks_are_all_rows_in_order(folder):
    source = EmbeddingSource(folder)
    z_image = np.concatenate([z for z, _ in source.chunks(7)])
    np.testing.assert_array_equal(z_image, [row.z_image for row in source])


def test_the_index_is_kept_and_holds_for_unchanged_files(folder, monkeypatch):
    EmbeddingSource(folder)
    monkeypatch.setattr("dalle2_jax.data.embedding_index.build_table", None)
    assert len(EmbeddingSource(folder)) == 39
    monkeypatch.undo()
    write_part(folder, 10, unit(12), unit(12), ["new"] * 12)
    assert EmbeddingSource(folder).caption(38) == "new"
    kept = folder / "img_emb" / "img_emb_10.npy.dalle2.idx"
    kept.write_bytes(kept.read_bytes()[:100])
    assert EmbeddingSource(folder).caption(38) == "new"


def test_a_folder_that_cannot_be_written_is_read(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    os.chmod(folder / "img_emb", 0o555)
    assert len(EmbeddingSource(folder)) == 39
    assert len(list((tmp_path / "cache").rglob("*.idx"))) == 2
    os.chmod(folder / "img_emb", 0o755)


@pytest.mark.parametrize("column", ["caption", "TEXT"])
def test_files_may_lie_in_the_folder_itself(tmp_path, column):
    np.save(tmp_path / "img_emb_0000.npy", 3 * unit(4))
    table = pa.table({column: ["a", "b", None, "d"]})
    pq.write_table(table, tmp_path / "metadata_0000.parquet")
    source = EmbeddingSource(tmp_path)
    assert list(source.captions()) == ["a", "b", "d"]
    assert not source.is_unit and not source.has_text
    np.testing.assert_allclose(source.norms, 3, rtol=1e-5)


def check_refused(folder, *words):
    with pytest.raises(BadInput) as error:
        EmbeddingSource(folder)
    assert all(word in str(error.value) for word in words), error.value


def test_what_does_not_belong_together_is_named(tmp_path):
    check_refused(tmp_path, "no img_emb_0.npy")
    write_part(tmp_path, 0, unit(4), unit(4), list("abcd"))
    write_part(tmp_path, 1, unit(4), unit(3), list("abcd"))
    check_refused(tmp_path, "text_emb_1.npy has 3 rows", "img_emb_1.npy has 4")
    write_part(tmp_path, 1, unit(4), unit(4), list("abcde"))
    check_refused(tmp_path, "metadata_1.parquet has 5 rows")
    write_part(tmp_path, 1, unit(4, 6), unit(4, 6), list("abcd"))
    check_refused(tmp_path, "img_emb_1.npy", "width 6", "width 8")
    write_part(tmp_path, 1, unit(4), unit(4, 6), list("abcd"))
    check_refused(tmp_path, "text_emb_1.npy", "width 6", "width 8")
    (tmp_path / "text_emb" / "text_emb_1.npy").unlink()
    check_refused(tmp_path, "no text_emb file for img_emb_1.npy")


def test_unreadable_files_are_named(tmp_path):
    write_part(tmp_path, 0, np.arange(4))
    check_refused(tmp_path, "img_emb_0.npy holds int64 [4]")
    np.save(tmp_path / "img_emb" / "img_emb_0.npy", np.array([{}]), allow_pickle=True)
    check_refused(tmp_path, "img_emb_0.npy is no readable .npy")
    write_part(tmp_path, 0, unit(4), None, list("abcd"))
    image = tmp_path / "img_emb" / "img_emb_0.npy"
    image.write_bytes(image.read_bytes()[:-8])
    check_refused(tmp_path, "img_emb_0.npy is no readable .npy")
    write_part(tmp_path, 0, unit(4), None, list("abcd"))
    (tmp_path / "metadata" / "metadata_0.parquet").write_bytes(b"PAR1")
    check_refused(tmp_path, "metadata_0.parquet is no readable parquet")
    write_part(tmp_path, 0, np.zeros((2, 8)), None, list("ab"))
    check_refused(tmp_path, "no usable embedding (all-zero row: 2)")


def test_the_table_says_what_it_left_out(folder):
    table = build_table(parts_of(folder)[0])
    assert table["row"].to_pylist() == [0, 1, 2, *range(6, 30)]
    about = json.loads(table.schema.metadata[b"about"])
    assert about["problems"]["no caption"] == 1
    assert is_embeddings(folder) and not is_embeddings(folder / "metadata")


def data_of(*changes):
    words = [f"--config.data.{word}" for word in ("threads=1", *changes)]
    return load_run("configs/prior_diffusion.py:small", words).data


def captions_in(batches, count):
    return [TOKENIZER.decode(ids) for b in islice(batches, count) for ids in b.tokens]


@pytest.mark.parametrize("blocks", [0, 1])
def test_every_row_comes_once_per_epoch_and_resumes(folder, blocks):
    source, data = EmbeddingSource(folder), data_of(f"shuffle_shards={blocks}")
    batches = embedding_batches(source, TOKENIZER, data, 13, 0)
    first = captions_in(batches, 1)
    position = json.loads(json.dumps(batches.position))
    rest = captions_in(batches, 5)
    batches.close()
    spoken = {TOKENIZER.decode(TOKENIZER.encode([c], 20)[0]) for c in source.captions()}
    assert set(first + rest[:26]) == spoken and len(spoken) == 39
    assert set(rest[26:]) == spoken and rest[26:] != first + rest[:26]
    again = embedding_batches(source, TOKENIZER, data, 13, 0, position)
    assert captions_in(again, 5) == rest
    again.close()


def test_processes_get_their_rows_of_the_same_batch(folder):
    source, data = EmbeddingSource(folder), data_of()
    (whole,) = islice(embedding_batches(source, TOKENIZER, data, 12, 0), 1)
    parts = [range(6), range(6, 12)]
    halves = [
        next(embedding_batches(source, TOKENIZER, data, 12, 0, rows=rows))
        for rows in parts
    ]
    for name in ("z_image", "tokens"):
        joined = np.concatenate([getattr(half, name) for half in halves])
        np.testing.assert_array_equal(joined, getattr(whole, name))


def test_two_files_of_one_number_are_refused_with_both_names(folder):
    for other in ("img_emb/img_emb_002.npy", "img_emb_2.npy", "text_emb_10.npy"):
        np.save(folder / other, unit(30))
        check_refused(folder, other, "2.npy" if "img" in other else "10.npy")
        (folder / other).unlink()
    (folder / "metadata" / "metadata_02.parquet").write_bytes(b"x")
    check_refused(folder, "metadata_02.parquet", "metadata_2.parquet")


def test_the_index_of_another_program_is_left_alone(folder):
    places = [
        folder / "img_emb" / f"img_emb_{number}.npy{ending}"
        for number in (2, 10)
        for ending in (".idx", ".dalle2.idx")
    ]
    for place in places:
        place.write_bytes(b"ARROW1\0\0 of another program")
    for _ in range(2):
        assert len(EmbeddingSource(folder)) == 39
    for place in places:
        assert place.read_bytes() == b"ARROW1\0\0 of another program"


def test_an_index_with_one_changed_byte_is_made_again(folder):
    EmbeddingSource(folder)
    kept = folder / "img_emb" / "img_emb_10.npy.dalle2.idx"
    whole = kept.read_bytes()
    for place in range(128, len(whole), len(whole) // 20):
        kept.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert list(EmbeddingSource(folder).captions())[30] == "caption 10 3"
        assert kept.read_bytes() == whole


def test_captions_that_are_no_text_are_mended_or_left_out(tmp_path):
    np.save(tmp_path / "img_emb_0.npy", unit(5))
    said = [b"caf\xe9", "é".encode(), b"a\0b", "\u200b".encode(), b"plain"]
    raw = pa.array(said, pa.large_binary()).view(pa.large_string())
    pq.write_table(pa.table({"caption": raw}), tmp_path / "metadata_0.parquet")
    source = EmbeddingSource(tmp_path)
    assert list(source.captions()) == ["café", "é", "ab", "plain"]
    assert source.problems == {"no caption": 1}
