"""Changes small valid files of every kind that `data` reads, thousands of times.

Run by test_fuzz.py in a process of its own, whose memory is limited. Whatever a file
holds, it is read or refused in one sentence, and a picture never comes with a caption
that its tar does not give it. Prints how many inputs of each kind were tried, refused
and read, as JSON.
"""

import io
import json
import logging
import os
import resource
import sys
import tarfile
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dalle2_jax.data import index_files
from dalle2_jax.data.embeddings import EmbeddingSource
from dalle2_jax.data.members import embedding_of
from dalle2_jax.data.numpy_files import arrays_of
from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.sample_members import parsed
from dalle2_jax.data.shard_index import beside, index_of
from dalle2_jax.data.text import decode, is_blank, read_captions, trimmed
from dalle2_jax.errors import BadInput, Failed

MEMORY = 3 * 2**30
BLOCK = 512
REFUSED = (BadInput, Failed)
TRIED, READ = Counter(), Counter()


def cases(count):
    """As many derived inputs, the same ones in every run."""
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


KINDS = [*["set"] * 6, "add", "add", "cut", "drop", "swap", "zero"]
PLACE = st.integers(0, 2**20)
SOME = st.binary(min_size=1, max_size=12) | st.sampled_from(
    [
        b"\0" * 8,
        b"7",
        b"e",
        b" ",
        b"\xff" * 12,
        b"}",
        b'"',
        b"\\ud83d",
        b"\xff\xfe",
        b"9" * 30,
        b"PK\3\4",
    ]
)


CHANGES = st.lists(
    st.tuples(st.sampled_from(KINDS), PLACE, PLACE, SOME), min_size=1, max_size=3
)


def changed(whole, changes):
    """Bytes written over, cut, added to, or with blocks dropped, swapped or emptied."""
    data = bytearray(whole)
    for kind, place, other, new in changes:
        if not data:
            break
        place, other = place % len(data), other % len(data)
        if kind == "set":
            data[place : place + len(new)] = new
        elif kind == "cut":
            del data[place:]
        elif kind == "add":
            data[place:place] = new
        else:
            _move(data, kind, place, other)
    return bytes(data)


def _move(data, kind, place, other):
    """Drops, doubles, swaps or empties 512 bytes at the grid of a tar."""
    place, other = place // BLOCK * BLOCK, other // BLOCK * BLOCK
    one, two = data[place : place + BLOCK], data[other : other + BLOCK]
    if kind == "drop":
        del data[place : place + BLOCK]
    elif kind == "zero":
        data[place : place + len(one)] = bytes(len(one))
    elif len(one) == len(two):
        data[place : place + BLOCK], data[other : other + BLOCK] = two, one


def opened(kind, make):
    """make(), or None where that is refused; any other error goes up."""
    TRIED[kind] += 1
    try:
        made = make()
    except REFUSED as error:
        assert str(error).strip(), "a refusal says why"
        return None
    READ[kind] += 1
    return made


def there(found):
    """What a reader gives; None counts as refused."""
    if found is None:
        raise BadInput("nothing")
    return found


# --- tars ---------------------------------------------------------------------


def a_tar():
    """(bytes, {header bytes: (key, extension)}) of eight samples in two tars."""
    whole, heads = b"", {}
    for form, numbers in (
        (tarfile.GNU_FORMAT, range(5)),
        (tarfile.PAX_FORMAT, (5, 6, 7)),
    ):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as tar:
            for number in numbers:
                key = f"{number}" if number < 6 else f"{number}{'é' * 70}"
                said = {"txt": f"said {number}", "json": json.dumps({"n": number})}
                members = {"jpg": f"picture {number} " * 60, **said}
                for extension, text in members.items():
                    _add(tar, f"{key}.{extension}", text.encode())
            link = tarfile.TarInfo(f"link{numbers[0]}.jpg")
            link.type, link.linkname = tarfile.LNKTYPE, f"{numbers[0]}.jpg"
            tar.addfile(link)
            _add(tar, f"link{numbers[0]}.txt", b"said by a link")
        data = out.getvalue()
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for info in tar:
                head = data[info.offset : info.offset_data]
                key, _, extension = info.name.partition(".")
                heads[head] = (key, extension, info.size)
        whole += data
    return whole, heads


def _add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


TAR, HEADS = a_tar()
FIELDS = {"name": (0, 100), "size": (124, 12), "type": (156, 1), "link": (157, 100)}
VALUES = st.binary(max_size=20) | st.sampled_from(
    [
        b"00000001000\0",
        b"\xff" * 10 + b"\xfe\0",
        b"\xff" * 12,
        b"\x80" + b"\0" * 10 + b"\7",
        b"S",
        b"1",
        b"2",
        b"x",
    ]
    + [b"g", b"L", b"K", b"3.jpg\0", b"../a.jpg\0", b"/b.txt\0", b"a\x1b.jpg\0", b"5\0"]
)


HEADERS = st.lists(
    st.tuples(PLACE, st.sampled_from(sorted(FIELDS)), VALUES), max_size=2
)
SEEN = {}  # place of a member's bytes -> that of its first header, or None
NEXT = tarfile.TarFile.next


def noting(tar):
    """TarFile.next, which notes where the headers of a member begin."""
    member = NEXT(tar)
    if member is not None:
        SEEN[member.offset_data] = None if tar.pax_headers else member.offset
    return member


def changed_headers(whole, headers):
    """A tar with headers that say something else under a right check sum."""
    data = bytearray(whole)
    for place, field, value in headers:
        place, (first, width) = place % (len(data) // BLOCK) * BLOCK, FIELDS[field]
        head, value = data[place : place + BLOCK], value[:width]
        head[first : first + len(value)] = value
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        data[place : place + BLOCK] = head
    return bytes(data)


def right_pairs(source, data):
    """Checks that headers which nobody changed led to the sample that they name.

    Of the bytes after them, too, as many as they say.
    """
    index, reader = source.indices[0], source.reader
    for row, key in enumerate(index.keys.tolist()):
        image, caption = source.pair(row)
        assert caption.encode() and not is_blank(caption)
        for spans, extension in ((index.pictures, "jpg"), (index.texts, "txt")):
            offset, length = spans[row].tolist()
            named = _named(data, offset) if length else None
            linked = key.startswith("link") and extension == "jpg"
            wanted = (key, extension, length)
            assert named is None or linked or named == wanted, (named, wanted)
        offset, length = index.pictures[row].tolist()
        assert image == data[offset : offset + length] and len(image) == length
        assert reader.record(0, row).caption == caption


def _named(data, offset):
    """What the headers before a member call it; None where somebody changed them."""
    first = SEEN[offset]
    return None if first is None else HEADS.get(data[first:offset])


def fuzz_tars(folder):
    path, number = folder / "shard", Counter()

    @cases(3000)
    @given(HEADERS, CHANGES | st.just([]))
    def run(headers, changes):
        data = changed(changed_headers(TAR, headers), changes)
        SEEN.clear()
        number["n"] += 1  # a name of its own: two files of one moment and size differ
        place = path.with_name(f"{number['n']}.tar")
        place.write_bytes(data)
        source = opened("tars", lambda: ShardSource(place))
        if source is not None:
            right_pairs(source, data)
            source.close()
        place.unlink()
        beside(place).unlink(missing_ok=True)

    tarfile.TarFile.next = noting
    run()
    tarfile.TarFile.next = NEXT


def fuzz_shard_indices(folder):
    place = folder / "whole.tar"
    place.write_bytes(TAR)
    expected = [(r.key, r.image, r.caption) for r in ShardSource(place)]
    kept = beside(place)
    whole = kept.read_bytes()
    payload = whole[index_files.HEAD :]

    @cases(400)
    @given(CHANGES)
    def damaged(changes):
        data = changed(whole, changes)
        kept.write_bytes(data)
        source = opened("index files of shards", lambda: ShardSource(place))
        assert [(r.key, r.image, r.caption) for r in source] == expected
        kept.unlink()

    @cases(400)
    @given(CHANGES)
    def forged(changes):
        data = changed(payload, changes)
        kept.write_bytes(index_files.packed(data))
        index_of(place)  # a forged index may lie, and must not break anything
        opened("forged index files of shards", lambda: list(ShardSource(place)))
        kept.unlink()

    damaged()
    forged()


# --- embeddings ---------------------------------------------------------------


def a_folder(folder):
    """Six rows with captions in clip-retrieval's layout."""
    folder.mkdir()
    rows = np.eye(6, 8, dtype=np.float16)
    np.save(folder / "img_emb_0.npy", rows)
    table = pa.table({"caption": [f"said {i}" for i in range(6)]})
    pq.write_table(table, folder / "metadata_0.parquet")
    return folder


def _rows(folder):
    return [(row.z_image.tolist(), row.caption) for row in EmbeddingSource(folder)]


def fuzz_embeddings(folder):
    home = a_folder(folder / "emb")
    expected = _rows(home)
    kept = home / "img_emb_0.npy.dalle2.idx"
    whole = kept.read_bytes()

    @cases(300)
    @given(CHANGES)
    def damaged(changes):
        data = changed(whole, changes)
        kept.write_bytes(data)
        assert opened("index files of embeddings", lambda: _rows(home)) == expected

    @cases(300)
    @given(CHANGES)
    def forged(changes):
        data = changed(whole[index_files.HEAD :], changes)
        kept.write_bytes(index_files.packed(data))
        opened("forged index files of embeddings", lambda: _rows(home))

    damaged()
    forged()
    for name, count in (("img_emb_0.npy", 600), ("metadata_0.parquet", 600)):
        kept.unlink(missing_ok=True)
        kept.mkdir()  # no index is kept: each file is read anew
        _fuzz_part(home / name, count, home)
        kept.rmdir()


def _fuzz_part(path, count, home):
    whole = path.read_bytes()

    @cases(count)
    @given(CHANGES)
    def run(changes):
        data = changed(whole, changes)
        path.write_bytes(data)
        opened(f"{path.suffix[1:]} of embeddings", lambda: _rows(home))

    run()
    path.write_bytes(whole)


def fuzz_arrays(folder):
    out = io.BytesIO()
    np.save(out, np.ones(8, np.float16))
    path = folder / "a.npz"
    np.savez_compressed(path, arr_0=np.ones((2, 4, 4, 3), np.uint8), mu=np.ones(3))
    packed = path.read_bytes()

    @cases(600)
    @given(CHANGES)
    def npy(changes):
        data = changed(out.getvalue(), changes)
        z = opened("npy members", lambda: embedding_of(data))
        assert z is None or np.isfinite(z).all() and z.any() and z.ndim == 1

    @cases(600)
    @given(CHANGES)
    def npz(changes):
        data = changed(packed, changes)
        path.write_bytes(data)
        found = opened("npz files", lambda: arrays_of(path)) or {}
        assert all(isinstance(array, np.ndarray) for array in found.values())

    npy()
    npz()


# --- texts --------------------------------------------------------------------


def texts_like(whole):
    """Changed forms of a short text."""
    return CHANGES.map(partial(changed, whole))


SAID = "ein “rotes” Café 赤い丸 🎨\r\nzwei &nbsp; \u200b"
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"]
TEXTS = st.binary(max_size=60) | st.one_of(
    *[texts_like(SAID.encode(name)) for name in ENCODINGS],
    texts_like("ein “rotes” Café".encode("cp1252")),
)
META = (
    b'{"caption": "a \\ud83d\\ude00 cat", "n": 12, "list": [1, {"k": null}], "x": 1e9}'
)


WIDE = META.decode().encode("utf-16")


def fuzz_texts(folder):
    path = folder / "captions"

    @cases(1500)
    @given(TEXTS)
    def captions(data):
        text, _ = opened("caption bytes", lambda: decode(data))
        assert text.encode().decode() == text and "\0" not in text
        assert is_blank(trimmed(text)) == is_blank(text)

    @cases(500)
    @given(TEXTS, st.sampled_from([".txt", ".csv"]))
    def files(data, ending):
        place = path.with_suffix(ending)
        place.write_bytes((b"text\n" if ending == ".csv" else b"") + data)
        lines = opened("caption files", lambda: read_captions(place)) or []
        assert not any(is_blank(line) for line in lines)
        assert ending == ".csv" or not any("\n" in line for line in lines)

    @cases(1000)
    @given(texts_like(META) | texts_like(WIDE) | st.binary(max_size=40))
    def meta(data):
        fields = opened("JSON members", lambda: there(parsed(data)))
        assert fields is None or json.dumps(fields, ensure_ascii=False).encode()

    captions()
    files()
    meta()


def main():
    """Runs all of them and prints the counts."""
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        fuzz_texts(folder)
        fuzz_arrays(folder)
        fuzz_tars(folder)
        fuzz_shard_indices(folder)
        fuzz_embeddings(folder)
    kinds = {kind: (n, n - READ[kind], READ[kind]) for kind, n in TRIED.items()}
    json.dump(kinds, sys.stdout)


if __name__ == "__main__":
    main()
