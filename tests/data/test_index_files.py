"""Index files: those of other programs are neither read nor written over."""

import pytest

from dalle2_jax.cli.main import main
from dalle2_jax.data import index_files
from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.shard_index import beside, cached, publish
from dalle2_jax.errors import BadInput
from tests.data.test_records import sample, shard

FOREIGN = [b"", b"garbage" * 100, b"ARROW1\0\0", b"\x40\0\0\0\0\0\0\0" + b"{}" * 40]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def damaged(whole):
    """Every way in which a file of ours may be cut off or changed in one byte."""
    for place in range(0, len(whole), 37):
        yield whole[:place]
        yield whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    yield whole + b"x"


def test_only_a_whole_index_of_ours_is_read():
    whole = index_files.packed(b"an index" * 20)
    assert index_files.unpacked(memoryview(whole)) == b"an index" * 20
    for data in [*damaged(whole), *FOREIGN]:
        assert index_files.unpacked(memoryview(data)) is None


@pytest.mark.parametrize("data", FOREIGN)
def test_what_is_not_ours_is_left_alone(tmp_path, data, monkeypatch):
    path = shard(tmp_path / "0.tar", sample("a"))
    for place in (beside(path), tmp_path / "0.tar.idx"):
        place.write_bytes(data)
    assert len(ShardSource(path)) == 1
    with pytest.raises(BadInput, match=r"0.tar.dalle2.idx"):
        publish(path)
    assert main(["data", "index", path]) == 2
    for place in (beside(path), tmp_path / "0.tar.idx"):
        assert place.read_bytes() == data
    monkeypatch.setattr("dalle2_jax.data.shard_index.build_index", None)
    assert cached(path).is_file() and len(ShardSource(path)) == 1


def test_an_old_or_damaged_index_of_ours_is_replaced(tmp_path):
    path = shard(tmp_path / "0.tar", sample("a"))
    ShardSource(path)
    whole = beside(path).read_bytes()
    beside(path).write_bytes(whole[:-9])
    assert ShardSource(path)[0].key == "a"
    assert beside(path).read_bytes() == whole


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_is_no_file_is_left_alone(tmp_path, kind):
    path = shard(tmp_path / "0.tar", sample("a"))
    if kind == "folder":
        beside(path).mkdir()
    else:
        beside(path).symlink_to(tmp_path / "nowhere")
    assert len(ShardSource(path)) == 1
    with pytest.raises(BadInput, match="left alone"):
        publish(path)
    assert beside(path).is_dir() == (kind == "folder")
    assert not (tmp_path / "nowhere").exists()
