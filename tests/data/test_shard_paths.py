"""What a pattern names: existing paths first, braces as in bash, folders by content."""

import gzip
import shutil
import subprocess

import pytest

from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.shard_paths import expand, expand_braces, is_shards
from dalle2_jax.errors import BadInput
from tests.data.test_records import sample, shard

PATTERNS = [
    "a{08..10}.tar",
    "{a,b}{0..1}",
    "plain.tar",
    "{a/{000..001},b/{000..001}}.tar",
    "{a..c}x{C..A}",
    "{3..1}",
    "{01..10..2}",
    "{10..1..-4}",
    "{001..1000..333}",
    "{-2..2}",
    "{-01..1}",
    "{0..4..0}",
    "{a}{}{,b}",
    "{a{b,c}}",
    "{{a,b},{c,{d,e}}}f",
    "a{b,c",
    "a}b{c,d}",
    "{a..3}",
    "{1..2..x}",
    "{a,b}{c",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_braces_expand_as_in_bash(pattern):
    bash = shutil.which("bash")
    done = subprocess.run([bash, "-c", f"echo {pattern}"], capture_output=True)
    assert " ".join(expand_braces(pattern)) == done.stdout.decode().rstrip("\n")


@pytest.mark.parametrize("pattern", ["{0..9999999}", "{0..999}{0..999}{0..999}"])
def test_too_many_are_refused(pattern):
    with pytest.raises(BadInput):
        expand_braces(pattern)
    with pytest.raises(BadInput):
        expand_braces("{a,b}" * 101)


ODD = ["set[v2]", "set{a,b}", "set{0..1}", "a*b", "what?", "sp ace", "[!x]", "{x"]


@pytest.mark.parametrize("name", ODD)
def test_what_exists_is_taken_as_it_is(tmp_path, monkeypatch, name):
    folder = tmp_path / name
    folder.mkdir()
    paths = [shard(folder / f"{i}{name}.tar", sample(f"{i}")) for i in range(2)]
    assert expand(paths[0]) == paths[:1]
    assert expand(folder) == expand(f"{folder}/") == paths
    assert expand(f"{folder}/*.tar") == expand(f"{folder}/{{0,1}}*.tar") == paths
    monkeypatch.chdir(tmp_path)
    assert expand(name) == [f"{name}/{i}{name}.tar" for i in range(2)]
    monkeypatch.chdir(folder)
    assert expand("*.tar") == [f"{i}{name}.tar" for i in range(2)]
    assert expand(f"../{name}/{{1,0}}*") == [f"../{name}/{i}{name}.tar" for i in (1, 0)]


def test_braces_and_globs_over_folders(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
    paths = [
        shard(tmp_path / place / f"00{i}.tar", sample("x"))
        for place in ("a", "b")
        for i in (0, 1)
    ]
    for tail in ("{a/{000..001},b/{000..001}}.tar", "{a..b}/*.tar", "**/*.tar", "*"):
        assert expand(f"{tmp_path}/{tail}") == paths
    with pytest.raises(BadInput, match="c/000.tar"):
        expand(f"{tmp_path}/{{a..c}}/000.tar")


def test_home_is_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = shard(tmp_path / "x.tar", sample("a"))
    assert expand("~/x.tar") == expand("~/*.tar") == [path]


def test_a_folder_of_tars_in_any_case_without_those_of_macos(tmp_path):
    path = shard(tmp_path / "0.TAR", sample("a"))
    (tmp_path / "._0.TAR").write_bytes(b"fork")
    (tmp_path / "1.tar").mkdir()
    assert expand(tmp_path) == [path] and len(ShardSource(tmp_path)) == 1
    assert is_shards(tmp_path) and is_shards("x/{0..1}.TAR") and not is_shards("x.npz")


def test_a_folder_without_shards_says_what_it_holds(tmp_path):
    with pytest.raises(BadInput, match="nothing"):
        expand(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"1 x .parquet"):
        expand(tmp_path)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    path = shard(tmp_path / "deep" / "er" / "0.tar", sample("a"))
    with pytest.raises(BadInput, match="deep/er"):
        expand(tmp_path)
    with gzip.open(tmp_path / "0.tar.gz", "wb") as out, open(path, "rb") as tar:
        out.write(tar.read())
    with pytest.raises(BadInput, match=r"0.tar.gz.*unpack"):
        expand(tmp_path)


def test_a_broken_link_is_named(tmp_path):
    (tmp_path / "0.tar").symlink_to(tmp_path / "gone")
    for pattern in (tmp_path, tmp_path / "0.tar"):
        with pytest.raises(BadInput, match=r"0.tar"):
            ShardSource(pattern)
