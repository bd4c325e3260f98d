"""Shards: found by pattern, indexed once, read at any place, and named when broken."""

import io
import json
import pickle
import tarfile

import fsspec
import numpy as np
import pytest

from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.shard_index import beside, cached, index_of
from dalle2_jax.data.shard_paths import expand, expand_braces
from dalle2_jax.data.write_shapes import make_shapes
from dalle2_jax.errors import BadInput


def shard(path, members):
    """A tar of (name, bytes)."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def sample(key, text=b"a cat", meta=b"{}"):
    return [(f"{key}.jpg", b"JPEG" + key.encode()), (f"{key}.txt", text)] + [
        (f"{key}.json", meta)
    ]


def test_braces_expand_like_a_shell():
    assert expand_braces("a{08..10}.tar") == ["a08.tar", "a09.tar", "a10.tar"]
    assert expand_braces("{a,b}{0..1}") == ["a0", "a1", "b0", "b1"]
    assert expand_braces("plain.tar") == ["plain.tar"]


def test_patterns_lists_and_folders_name_the_same_shards(tmp_path):
    paths = [shard(tmp_path / f"{i:05d}.tar", sample(f"{i}")) for i in range(3)]
    (tmp_path / "notes.txt").write_text("no shard")
    for pattern in (
        tmp_path,
        str(tmp_path),
        f"{tmp_path}/*.tar",
        f"{tmp_path}/{{00000..00002}}.tar",
        paths,
        [f"{tmp_path}/{{00000..00001}}.tar", paths[2], paths[0]],
    ):
        assert expand(pattern) == paths


def test_records_come_whole_and_in_order(tmp_path):
    first = shard(tmp_path / "0.tar", sample("b") + sample("a", b" two \n"))
    second = shard(tmp_path / "1.tar", sample("x/y", b"", b'{"caption": "three"}'))
    source = ShardSource([first, second])
    assert len(source) == 3 and source.problems == {}
    said = [(r.key, r.image, r.caption, r.shard) for r in source]
    assert said == [
        ("b", b"JPEGb", "a cat", first),
        ("a", b"JPEGa", "two", first),
        ("x/y", b"JPEGx/y", "three", second),
    ]
    assert source[-1].meta == {"caption": "three"}
    assert list(source.captions()) == ["a cat", "two", "three"]
    with pytest.raises(IndexError):
        source[3]


def test_a_source_travels_between_processes(tmp_path):
    source = ShardSource(shard(tmp_path / "0.tar", sample("a")))
    assert source[0] == pickle.loads(pickle.dumps(source))[0]
    source.close()
    assert source[0].key == "a"


def test_incomplete_samples_are_left_out_by_reason(tmp_path):
    members = sample("good")
    members += [("1.jpg", b"x")]
    members += [("2.txt", b"a caption"), ("2.json", b"{}")]
    members += sample("3", meta=b"{broken") + sample("4", meta=b"[1]")
    members += sample("5", text=b" \n", meta=b'{"caption": ""}')
    members += [("6.jpg", b""), ("6.txt", b"empty picture")]
    members += [("7.JPG", b"x"), ("7.txt", b"capital letters"), ("7.cls", b"1")]
    source = ShardSource(shard(tmp_path / "0.tar", members))
    assert [r.key for r in source] == ["good", "4", "7"]
    assert source.problems == {"no caption": 2, "no picture": 2, "broken JSON": 1}


def test_a_truncated_shard_keeps_its_whole_samples(tmp_path):
    members = [m for i in range(20) for m in sample(f"{i:03d}")]
    path = tmp_path / "0.tar"
    shard(path, members)
    path.write_bytes(path.read_bytes()[: 10 * 3 * 1024 + 700])
    source = ShardSource(str(path))
    assert [r.key for r in source] == [f"{i:03d}" for i in range(10)]
    assert set(source.problems) & {"cut off", "the shard ends early"}


def test_a_damaged_header_is_noticed(tmp_path):
    path = tmp_path / "0.tar"
    shard(path, [m for i in range(4) for m in sample(f"{i}")])
    data = bytearray(path.read_bytes())
    data[3 * 1024 : 3 * 1024 + 512] = b"\x55" * 512
    path.write_bytes(data)
    source = ShardSource(str(path))
    assert len(source) == 1 and source.problems == {"the shard ends early": 1}


def test_the_index_is_kept_and_follows_the_shard(tmp_path):
    path = tmp_path / "0.tar"
    shard(path, sample("a"))
    assert ShardSource(str(path))[0].key == "a"
    kept = beside(path).read_bytes()
    index_of(str(path))
    assert beside(path).read_bytes() == kept
    shard(path, sample("b") + sample("c"))
    assert [r.key for r in ShardSource(str(path))] == ["b", "c"]
    for damage in (kept[:60], kept[:200], kept[:-30], kept[:-30] + bytes(30)):
        beside(path).write_bytes(damage)
        assert [r.key for r in ShardSource(str(path))] == ["b", "c"]
        assert beside(path).read_bytes() != damage
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["0.tar", "0.tar.dalle2.idx"]


def test_a_read_only_folder_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    folder.mkdir()
    path = shard(folder / "0.tar", sample("a"))
    folder.chmod(0o555)
    try:
        assert len(ShardSource(path)) == 1
        assert [p.name for p in folder.iterdir()] == ["0.tar"]
        assert cached(path).is_file()
        assert len(ShardSource(path)) == 1
    finally:
        folder.chmod(0o755)


def test_remote_shards_are_read_through_fsspec(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    local = make_shapes("simple", 6, 0, tmp_path / "s", 32)[0]
    with fsspec.open("memory://bucket/00000.tar", "wb") as out:
        out.write(local.read_bytes())
    here, there = ShardSource(local), ShardSource("memory://bucket/*.tar")
    assert [r._replace(shard="") for r in here] == [r._replace(shard="") for r in there]
    with pytest.raises(BadInput, match=r"memory://bucket/9.tar cannot be read"):
        ShardSource("memory://bucket/9.tar")


def test_shapes_pass_through_unchanged(tmp_path):
    paths = make_shapes("pairs", 10, 0, tmp_path / "s", 32, shard_size=4)
    source = ShardSource(tmp_path / "s")
    assert len(source) == 10 and len(source.shards) == len(paths)
    assert all(r.caption == r.meta["caption"] for r in source)
    assert json.loads(json.dumps(source[3].meta))["world"] == "pairs"


def test_what_is_no_shard_is_said(tmp_path):
    with pytest.raises(BadInput, match="There is no shard .*00000.tar"):
        ShardSource(f"{tmp_path}/{{00000..00003}}.tar")
    with pytest.raises(BadInput, match="No tar shard matches"):
        ShardSource(str(tmp_path))
    with pytest.raises(BadInput, match="an empty list"):
        ShardSource([])
    (tmp_path / "0.tar").write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(BadInput, match="0.tar is no tar file"):
        ShardSource(tmp_path / "0.tar")
    (tmp_path / "0.tar").write_bytes(b"")
    with pytest.raises(BadInput, match="0.tar is no tar file"):
        ShardSource(tmp_path / "0.tar")
    with pytest.raises(BadInput, match="1.tar is empty"):
        ShardSource(shard(tmp_path / "1.tar", []))
    with pytest.raises(BadInput, match="No usable sample .*no caption: 1"):
        ShardSource(shard(tmp_path / "2.tar", [("1.jpg", b"x")]))


def test_random_reads_equal_reads_in_order(tmp_path):
    make_shapes("simple", 30, 0, tmp_path / "s", 16, shard_size=8)
    source = ShardSource(tmp_path / "s")
    whole = list(source)
    for i in np.random.default_rng(0).integers(-30, 30, 50):
        assert source[int(i)] == whole[int(i)]


def test_any_other_member_of_a_sample_can_be_read(tmp_path):
    members = sample("a") + [("a.npy", b"one"), ("a.img_emb.npy", b"two")]
    members += sample("b") + [("c.npy", b"three"), ("c.txt", b"no picture")]
    path = shard(tmp_path / "0.tar", members)
    source = ShardSource(path)
    assert source.problems == {"no picture": 1}
    found = [source.member(i, e) for i in (0, 1) for e in ("npy", "img_emb.npy")]
    assert found == [b"one", b"two", None, None]
    bare = ShardSource(path, need=("npy", "caption"))
    assert [bare.member(i, "npy") for i in range(2)] == [b"one", b"three"]
    assert bare[1].image == b"" and bare.problems == {"no npy": 1}
