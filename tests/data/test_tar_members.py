"""Tars as other programs write them: links, holes, names, ends, one after another"""

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.sample_members import NOT_UTF8, parsed
from dalle2_jax.data.shard_index import build_index
from dalle2_jax.errors import BadInput
from tests.data.test_records import sample, shard


def info_of(name, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, io.BytesIO(data)


def tar_of(path, *members, **options):
    """A tar of (TarInfo, bytes) or (name, bytes)."""
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members:
            info, file = (name, data) if hasattr(data, "read") else info_of(name, data)
            tar.addfile(info, file)
    return str(path)


def read(path):
    """{key: (image, caption)} of the usable samples, and the problems."""
    source = ShardSource(str(path))
    return {r.key: (r.image, r.caption) for r in source}, source.problems


LINK = {"type": tarfile.LNKTYPE}


def test_hard_links_take_the_bytes_of_their_target(tmp_path):
    path = tar_of(
        tmp_path / "0.tar",
        ("./blob", b"LOOSE"),
        ("d/a.jpg", b"PICTURE"),
        ("d/a.txt", b"first"),
        info_of("b.jpg", linkname="./d/a.jpg", **LINK),
        ("b.txt", b"second"),
        info_of("c.jpg", linkname="blob", **LINK),
        ("c.txt", b"third"),
        info_of("x.jpg", linkname="nowhere.jpg", **LINK),
        ("x.txt", b"lost"),
        info_of("y.jpg", linkname="d/a.jpg", type=tarfile.SYMTYPE),
        ("y.txt", b"lost"),
        ("z.jpg", b"Z"),
        ("z.txt", b"kept"),
        info_of("z.mask", linkname="elsewhere", type=tarfile.SYMTYPE),
    )
    found, problems = read(path)
    assert found == {
        "d/a": (b"PICTURE", "first"),
        "b": (b"PICTURE", "second"),
        "c": (b"LOOSE", "third"),
        "z": (b"Z", "kept"),
    }
    assert list(problems.values()) == [2] and "link" in next(iter(problems))


@pytest.mark.parametrize("form", ["gnu", "0.0", "0.1", "1.0"])
def test_sparse_members_are_refused_and_named(tmp_path, form):
    (tmp_path / "a.jpg").write_bytes(b"")
    with (tmp_path / "a.jpg").open("wb") as file:
        for place in range(8):
            file.seek(place * 65536)
            file.write(b"x" * 100)
    (tmp_path / "b.jpg").write_bytes(b"plain")
    for key in "ab":
        (tmp_path / f"{key}.txt").write_text(key)
    kind = ["--format=gnu"]
    if form != "gnu":
        kind = ["--format=posix", f"--sparse-version={form}"]
    words = ["tar", "-S", *kind, "-cf", "0.tar", "a.jpg", "a.txt", "b.jpg", "b.txt"]
    subprocess.run(words, cwd=tmp_path, check=True)
    found, problems = read(tmp_path / "0.tar")
    assert found == {"b": (b"plain", "b")}
    assert problems == {"sparse member": 1}


def test_one_tar_after_another_is_read_to_the_end(tmp_path):
    first = shard(tmp_path / "a.tar", sample("a") + sample("b"))
    second = shard(tmp_path / "b.tar", sample("c", b"three") + sample("d", b"four"))
    third = shard(tmp_path / "e.tar", [])
    whole = b"".join(Path(path).read_bytes() for path in (first, third, second))
    (tmp_path / "0.tar").write_bytes(whole)
    found, problems = read(tmp_path / "0.tar")
    assert found == {
        "a": (b"JPEGa", "a cat"),
        "b": (b"JPEGb", "a cat"),
        "c": (b"JPEGc", "three"),
        "d": (b"JPEGd", "four"),
    }
    assert not problems


def test_halves_of_one_key_in_two_tars_are_no_sample(tmp_path):
    first = shard(tmp_path / "a.tar", [("a.jpg", b"ONE"), *sample("b")])
    second = shard(tmp_path / "b.tar", [("a.txt", b"two"), *sample("b", b"new")])
    whole = Path(first).read_bytes() + Path(second).read_bytes()
    (tmp_path / "0.tar").write_bytes(whole)
    found, problems = read(tmp_path / "0.tar")
    assert found == {"b": (b"JPEGb", "a cat")}
    assert problems == {"duplicate key": 2, "no caption": 1}


def test_a_picture_never_gets_the_caption_of_a_duplicate(tmp_path):
    path = tar_of(
        tmp_path / "0.tar",
        *[("a.jpg", b"A1"), *sample("x"), ("a.txt", b"of A2"), ("a.jpg", b"A2")],
        *[("b.jpg", b"B1"), ("b.jpg", b"B2"), ("b.txt", b"of B2")],
        *[*sample("c"), *sample("y"), *sample("c", b"later")],
    )
    found, problems = read(path)
    assert set(found) == {"x", "y", "c"} and found["c"][1] == "a cat"
    assert problems["duplicate key"] >= 3


@pytest.mark.parametrize("cut", ["at the end mark", "at a member"])
def test_a_tar_without_its_end_mark_is_told(tmp_path, cut):
    whole = Path(shard(tmp_path / "1.tar", sample("a") + sample("b"))).read_bytes()
    blocks = 12 if cut == "at the end mark" else 10  # two of each member
    (tmp_path / "0.tar").write_bytes(whole[: blocks * 512])
    found, problems = read(tmp_path / "0.tar")
    assert set(found) == {"a", "b"} and found["a"] == (b"JPEGa", "a cat")
    assert problems == {"no end mark": 1}


def test_what_follows_the_end_mark_is_told(tmp_path):
    whole = Path(shard(tmp_path / "1.tar", sample("a"))).read_bytes()
    (tmp_path / "0.tar").write_bytes(whole + b"a signature")
    assert read(tmp_path / "0.tar")[1] == {"something after the end mark": 1}
    damaged = whole[: 2 * 512] + bytes(512) + whole[3 * 512 :]  # a header of zeros
    (tmp_path / "0.tar").write_bytes(damaged)
    assert build_index(tmp_path / "0.tar").problems == {"the shard ends early": [""]}


NAMES = ["写真\u3000一", "👩\u200d🎨", "a\u00a0b", "é", "ab\u202ecd", "two\u2028lines"]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_may_hold_any_letter(tmp_path, form):
    members = [m for i, name in enumerate(NAMES) for m in sample(name, b"%d" % i)]
    found, problems = read(tar_of(tmp_path / "0.tar", *members, format=form))
    assert not problems and list(found) == NAMES
    for i, (name, (image, said)) in enumerate(found.items()):
        assert image == b"JPEG" + name.encode() and said == str(i)


def test_absolute_names_lose_their_slash_and_latin1_names_are_read(tmp_path):
    members = [m for key in ("/d/a", "//b", "./c") for m in sample(key)]
    found, problems = read(tar_of(tmp_path / "0.tar", *members))
    assert list(found) == ["d/a", "b", "c"] and not problems
    members = sample("Zürich")
    path = tar_of(
        tmp_path / "1.tar", *members, format=tarfile.GNU_FORMAT, encoding="latin-1"
    )
    assert list(read(path)[0]) == ["Zürich"]


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\nb", "../a", "a/../../b", "x" * 600])
def test_unsafe_names_are_refused_and_shown_escaped(tmp_path, name):
    path = tar_of(tmp_path / "0.tar", *sample("good"), *sample(name))
    index = build_index(path)
    assert index.keys.tolist() == ["good"]
    for key in index.problems["unsafe name"]:
        assert key.isprintable() and len(key) <= 512


def test_files_of_macos_are_no_members(tmp_path):
    members = [("._a.jpg", b"fork"), *sample("a"), ("__MACOSX/d/._a.txt", b"fork")]
    members += [("d/__MACOSX/b.jpg", b"x"), (".DS_Store", b"x"), ("d/.DS_Store", b"x")]
    index = build_index(tar_of(tmp_path / "0.tar", *members))
    assert index.keys.tolist() == ["a"] and not index.problems
    assert index.kinds.tolist() == []


def test_what_lies_there_in_place_of_pictures_is_named(tmp_path):
    path = tar_of(tmp_path / "0.tar", ("a.heic", b"x"), ("a.txt", b"said"))
    with pytest.raises(BadInput, match=r"no picture: 1.*\.heic"):
        ShardSource(path)


def test_dotted_names_are_explained(tmp_path):
    members = [(f"photo_v1.{i}.{e}", b"x") for i in range(3) for e in ("jpg", "txt")]
    path = tar_of(tmp_path / "0.tar", *members)
    with pytest.raises(BadInput, match="FIRST dot"):
        ShardSource(path)
    whole = ShardSource(tar_of(tmp_path / "1.tar", *members, *sample("good")))
    assert "dot" in next(iter(whole.problems))


@pytest.mark.parametrize("kind", ["gif", "BMP", "avif", "jfif", "tiff", "tif", "jpe"])
def test_pictures_of_all_formats_that_are_decoded(tmp_path, kind):
    path = tar_of(tmp_path / "0.tar", (f"a.{kind}", b"PICTURE"), ("a.txt", b"said"))
    assert read(path) == ({"a": (b"PICTURE", "said")}, {})


@pytest.mark.parametrize("meta", [b"[1]", b'"said"', b"null", b"3"])
def test_json_that_is_no_dict_leaves_the_text(tmp_path, meta):
    path = tar_of(tmp_path / "0.tar", *sample("a", meta=meta))
    assert read(path)[0]["a"][1] == "a cat"
    assert ShardSource(path)[0].meta == {}


def test_halves_of_surrogates_become_text_at_the_reader(tmp_path):
    meta = b'{"caption": "a cat \\ud83d\\u0000", "\\uDE00": ["\\ud83d\\ude00 \\udc00"]}'
    path = tar_of(tmp_path / "0.tar", *sample("a", b"\xff\xfe\x3d\xd8", meta))
    record = ShardSource(path)[0]
    assert record.meta == {"caption": "a cat ?\0", "?": ["😀 ?"]}
    assert ascii(record.caption) == "'\\ufffd'"
    source = ShardSource(path, said="caption")
    assert source[0].caption == "a cat ?"


def test_captions_of_other_encodings_are_read_and_counted(tmp_path):
    said = "ein “rotes” Café"
    members = sample("a", said.encode("cp1252")) + sample("b", said.encode("utf-16"))
    members += sample("c", b"", f'{{"caption": "{said}"}}'.encode("cp1252"))
    source = ShardSource(tar_of(tmp_path / "0.tar", *members))
    assert list(source.captions()) == [said] * 3
    assert source.notes == {NOT_UTF8: 2} and not source.problems
    assert source.indices[0].notes[NOT_UTF8] == ["a", "c"]


@pytest.mark.parametrize("text", [" ", "\u00a0", "\ufeff", "\u200b", "&nbsp;"])
def test_index_and_reader_have_one_notion_of_blank(tmp_path, text):
    members = sample("a", text.encode(), b'{"caption": "of the JSON"}')
    members += sample("b", text.encode(), f'{{"caption": "{text}"}}'.encode())
    source = ShardSource(tar_of(tmp_path / "0.tar", *members))
    assert list(source.captions()) == ["of the JSON"]
    assert source.problems == {"no caption": 1}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_of_any_unicode(encoding):
    assert parsed('{"a": "é"}'.encode(encoding)) == {"a": "é"}
    assert parsed(b"[" * 100_000) is None and parsed(b"{") is None


def test_a_header_that_leads_back_does_not_hang(tmp_path):
    path = tmp_path / "0.tar"
    whole = bytearray(Path(tar_of(path, *sample("a"), *sample("b"))).read_bytes())
    head = whole[6 * 512 : 7 * 512]  # of b.jpg
    head[124:136] = b"\xff" * 10 + b"\xfe\0"  # base 256: 512 bytes back
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    whole[6 * 512 : 7 * 512] = head
    path.write_bytes(whole)
    index = build_index(path)
    assert index.keys.tolist() == ["a"] and index.problems
