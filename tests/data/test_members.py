"""Shards whose samples hold their own embedding: read, replaced, ordered."""

import io
import json
import tarfile
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from dalle2_jax.cli.overrides import load_run
from dalle2_jax.data.lazy_shards import LazyShards
from dalle2_jax.data.members import MemberSource, embedding_of, member_batches
from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.errors import BadInput

TOKENIZER = Tokenizer.train(["said 0 1 2 3 4 5 6 7 8 9"], 600)
NEED = ("caption", "npy")


def npy(rows):
    out = io.BytesIO()
    np.save(out, rows, allow_pickle=True)
    return out.getvalue()


def png(shade):
    out = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), shade, np.uint8)).save(out, "PNG")
    return out.getvalue()


def z_of(number):
    return np.eye(8)[number % 8].astype(np.float16)


def write(folder, changed=(), shards=2, per_shard=10):
    """Sample i is a picture of shade i, 'said i', and an embedding; some changed."""
    changed = dict(changed)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for i in range(shard * per_shard, (shard + 1) * per_shard):
                said, vector = f"said {i}".encode(), changed.get(i, npy(z_of(i)))
                kinds = {"png": png(i), "txt": said, "npy": vector}
                for extension, data in kinds.items():
                    info = tarfile.TarInfo(f"{i:04d}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return str(folder)


def number_in(ids):
    """Of the sample that a row of tokens belongs to; every digit is a word."""
    return int("".join(TOKENIZER.decode(ids).split()[1:]))


def data_of(*changes):
    words = ["size=32", "threads=1", "bad=0.5", *changes]
    words = [f"--config.data.{word}" for word in words]
    return load_run("configs/prior_diffusion.py:small", words).data


def test_what_an_embedding_is():
    for rows in (np.float16([3, 4]), np.float64([[3, 4]])):
        np.testing.assert_array_equal(embedding_of(npy(rows), 2), np.float32([3, 4]))
    wrong = {
        "no .npy file": b"\x93NUMPY half",
        "width 2, not 3": npy(np.ones(2)),
        "no embedding": npy(np.ones((2, 2))),
        "int64": npy(np.arange(3)),
        "zeros": npy(np.zeros(3)),
        "not finite": npy(np.float32([1, np.inf, 0])),
        "is no .npy": npy(np.array([{}], object)),
    }
    for words, data in wrong.items():
        with pytest.raises(BadInput, match=words):
            embedding_of(data, 3)


@pytest.mark.parametrize("kind", [ShardSource, LazyShards])
@pytest.mark.parametrize("pictures", [False, True])
def test_an_epoch_is_every_sample_with_its_own_embedding(tmp_path, kind, pictures):
    source = MemberSource(kind(write(tmp_path), NEED), "npy", pictures)
    assert source.width == 8 and source.is_unit
    batches = member_batches(source, TOKENIZER, data_of(), 5, 0)
    taken = list(islice(batches, 4))
    numbers = []
    for batch in taken:
        assert (batch.image is not None) == pictures
        for row, ids in enumerate(batch.tokens):
            number = number_in(ids)
            np.testing.assert_array_equal(batch.z_image[row], z_of(number))
            if pictures:
                assert np.all(batch.image[row] == number)
            numbers.append(number)
    assert sorted(numbers) == list(range(20))
    again = member_batches(source, TOKENIZER, data_of(), 5, 0, rows=range(2, 4))
    np.testing.assert_array_equal(next(again).tokens, taken[0].tokens[2:4])
    batches.close()


@pytest.mark.parametrize("pictures", [False, True])
def test_a_broken_embedding_gives_way_and_is_noted(tmp_path, pictures):
    changed = {4: npy(np.ones(7)), 5: b"half", 13: npy(np.zeros(8))}
    folder, log = write(tmp_path, changed), tmp_path / "skipped.jsonl"
    source = MemberSource(ShardSource(folder, NEED), "npy", pictures)
    batches = member_batches(source, TOKENIZER, data_of(), 20, 0, log=log)
    batch = next(batches)
    said = sorted(number_in(ids) for ids in batch.tokens)
    assert not {4, 5, 13} & set(said) and len(said) == 20
    assert said.count(6) == 3 and said.count(14) == 2
    lines = [json.loads(line) for line in log.read_text().split("\n") if line]
    found = {line["key"]: line["reason"] for line in lines}
    assert found["0004"] == "holds an embedding of width 7, not 8."
    assert set(found) == {"0004", "0005", "0013"}
    assert sum(map(len, batches.skipped.values())) == 3


def test_a_broken_picture_gives_way_together_with_its_embedding(tmp_path):
    folder = write(tmp_path)
    path = tmp_path / "0.tar"
    path.write_bytes(path.read_bytes().replace(png(3), b"x" * len(png(3))))
    source = MemberSource(ShardSource(folder, NEED), "npy", pictures=True)
    batch = next(member_batches(source, TOKENIZER, data_of(), 20, 0))
    for row, image in enumerate(batch.image):
        np.testing.assert_array_equal(batch.z_image[row], z_of(int(image[0, 0, 0])))
    assert sorted(batch.image[:, 0, 0, 0]).count(4) == 2


def test_too_many_broken_embeddings_stop_the_run(tmp_path):
    changed = {i: npy(np.ones(3)) for i in range(3, 15)}
    source = MemberSource(ShardSource(write(tmp_path, changed), NEED), "npy", False)
    batches = member_batches(source, TOKENIZER, data_of("bad=0.01"), 20, 0)
    with pytest.raises(BadInput, match="10 of .* width 3, not 8"):
        next(batches)


def test_shards_without_embeddings_are_refused(tmp_path):
    broken = dict.fromkeys(range(20), b"")
    shards = ShardSource(write(tmp_path, broken), ("caption",))
    with pytest.raises(BadInput, match="No npy member of .*0000 holds an embedding"):
        MemberSource(shards, "npy", False)
    with pytest.raises(BadInput, match="No usable sample.*no img_emb.npy: 20"):
        ShardSource(str(tmp_path), ("caption", "img_emb.npy"))
