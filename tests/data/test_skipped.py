"""Broken members: left out by reason, in a log, and a stop when they are too many."""

import io
import json
import random
import tarfile

import numpy as np
import pytest

from dalle2_jax.data.batches import captioned_batches
from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.shard_index import build_index
from dalle2_jax.data.skipped import Skipped
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.data.write_shapes import make_shapes
from dalle2_jax.errors import BadInput
from dalle2_jax.train.run import Data
from tests.data.test_images import bomb
from tests.data.test_records import sample, shard

TOKENIZER = Tokenizer.train(["a red circle on white"], 600)


@pytest.fixture
def folder(tmp_path):
    """60 good samples, and one of every kind of damage."""
    folder = tmp_path / "s"
    make_shapes("simple", 60, 0, folder, 16, shard_size=40)
    whole = (folder / "00001.tar").read_bytes()
    (folder / "00002.tar").write_bytes(whole[:9000])
    (folder / "00003.tar").write_bytes(b"")
    shard(folder / "00004.tar", [])
    (folder / "00005.tar").write_bytes(b"<html>" * 500)
    members = [("../x.png", b"x"), ("../x.txt", b"x"), ("/y.png", b"y")]
    members += [("b.png", bomb()), ("b.txt", b"a bomb")]
    members += [("t.png", b"\x89PNG\r\n\x1a\n cut"), ("t.txt", b"truncated")]
    members += [("n.png", b"a picture"), ("j.png", b"x"), ("j.txt", b"a")]
    members += [("j.json", b"[" * 100_000), ("e.png", b""), ("e.txt", b"none")]
    members += sample("d") + sample("d")
    shard(folder / "00006.tar", members)
    return folder


REASONS = {
    "the shard ends early": 1,
    "cut off": 1,
    "no tar file": 2,
    "empty shard": 1,
    "unsafe name": 1,
    "no caption": 2,
    "broken JSON": 1,
    "no picture": 1,
    "duplicate key": 1,
}


def test_every_kind_of_damage_is_counted_and_logged(folder, tmp_path):
    source = ShardSource(folder)
    found = dict(source.problems)
    found["cut off"] = found.get("cut off", 1)  # or the shard ends between two
    assert found == REASONS
    log = tmp_path / "skipped.jsonl"
    for _ in range(2):  # again, as after an interruption
        batches = captioned_batches(
            source, TOKENIZER, Data(16, 12, bad=0.5), 8, 0, log=log
        )
        images = [next(batches).image for _ in range(9)]
        assert all(image.shape == (8, 16, 16, 3) for image in images)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    decoded = {"b": "too large", "t": "no picture", "d": "no picture"}
    said = {line["key"]: line["reason"] for line in lines}
    assert all(words in said[key] for key, words in decoded.items() if key != "d")
    assert len(lines) == sum(source.problems.values()) + 3
    assert {line["shard"].rpartition("/")[2] for line in lines} == {
        f"{i:05d}.tar" for i in range(2, 7)
    }


def test_too_large_a_share_stops_with_one_sentence(folder):
    source = ShardSource(folder)
    with pytest.raises(BadInput, match="10 of .* samples cannot be used, .*data.bad"):
        captioned_batches(source, TOKENIZER, Data(16, 12, bad=0.01), 8, 0)


def test_a_log_cut_short_does_no_harm(tmp_path):
    log = tmp_path / "skipped.jsonl"
    Skipped(1.0, log).broken("s", "a", "is cut off")
    with log.open("a") as out:
        out.write('{"shard": "s", "ke')
    again = Skipped(1.0, log)
    again.broken("s", "a", "is cut off")
    again.broken("s", "b", "is cut off")
    again.broken("s", "b", "is cut off")
    assert log.read_text().count("is cut off") == 2 and again.tried == 2


def test_garbage_never_breaks_the_index(tmp_path):
    """Bytes of a tar changed at random: an index whose spans lie in the file."""
    members = [m for i in range(6) for m in sample(f"{i:03d}")]
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in [("long" * 60 + ".txt", b"x"), *members]:
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(data), {"comment": "ü"}
            tar.addfile(info, io.BytesIO(data))
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        data = bytearray(whole[: rng.choice((len(whole), rng.randrange(len(whole))))])
        for _ in range(rng.randrange(1, 30)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        index = build_index(path)
        spans = np.concatenate([index.pictures, index.texts, index.metas])
        assert (spans.sum(axis=1) <= len(data)).all()
