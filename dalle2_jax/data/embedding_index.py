"""The index of one part of a folder of embeddings: its usable rows and captions."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dalle2_jax.data import index_files
from dalle2_jax.data.numpy_files import mapped
from dalle2_jax.data.shard_index import beside, cached
from dalle2_jax.data.text import decode, is_blank, valid
from dalle2_jax.errors import BadInput

VERSION = 2
CHUNK = 8192  # rows looked at together
CAPTIONS = ("caption", "TEXT", "text", "Caption")  # columns, the first there is
DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException)
REASONS = ("", "all-zero row", "value that is not finite", "no caption")


class Part(NamedTuple):
    """Files whose rows belong together; text and meta may be None."""

    image: Path
    text: Path | None
    meta: Path | None


class PartIndex(NamedTuple):
    """rows: int64 [n], the usable ones; captions: Arrow strings [n] or None.

    norms: (smallest, largest) length of a usable image embedding, (0, 0) for none;
    problems: reason -> number of rows left out.
    """

    rows: np.ndarray
    captions: Any
    norms: tuple
    problems: dict


def open_rows(path: Path) -> np.ndarray:
    """The array of a .npy file, float [n, width], memory-mapped.

    Raises:
        BadInput: it is cut off, or holds anything else.
    """
    rows = mapped(path)
    if rows.ndim != 2 or rows.dtype.kind != "f":
        raise BadInput(
            f"{path} holds {rows.dtype} {list(rows.shape)}; embeddings are floats "
            "[samples, width]."
        )
    return rows


def index_of_part(part: Part) -> PartIndex:
    """The index of a part, from beside it, from the cache, or built now.

    Raises:
        BadInput: a file cannot be read, or the rows do not line up.
    """
    stamp = _stamp(part)
    places = beside(part.image), cached(part.image)
    count = len(open_rows(part.image))
    for place in places:
        found = _load(place, stamp)
        if found is not None and found.rows.max(initial=-1) < count:
            return found
    made = build_table(part)
    made = made.replace_schema_metadata({**made.schema.metadata, b"stamp": stamp})
    whole = _packed(made)
    any(index_files.save(place, whole) for place in places)
    return _from_table(made)


def build_table(part: Part) -> pa.Table:
    """Reads all embeddings and captions of a part.

    Returns:
        Arrow table with `row` int64 and, where there are captions, `caption`; its
        metadata holds, as JSON under `about`, norms and problems of PartIndex.
    """
    image, captions = open_rows(part.image), _captions(part.meta)
    text = None if part.text is None else open_rows(part.text)
    _check_lengths(zip(part, (image, text, captions)))
    norms = _norms(image)
    fault = _fault(norms)
    if text is not None:
        fault = np.maximum(fault, _fault(_norms(text)))
    if captions is not None:
        blank = np.fromiter(map(is_blank, captions.to_pylist()), bool, len(captions))
        fault = np.where((fault == 0) & blank, REASONS.index("no caption"), fault)
    rows = np.flatnonzero(fault == 0)
    columns = {"row": pa.array(rows, pa.int64())}
    if captions is not None:
        columns["caption"] = captions.take(columns["row"])
    good = norms[rows]
    span = [float(good.min()), float(good.max())] if len(rows) else [0.0, 0.0]
    counts = np.bincount(fault, minlength=len(REASONS)).tolist()
    problems = {r: n for r, n in zip(REASONS[1:], counts[1:]) if n}
    about = json.dumps({"norms": span, "problems": problems})
    return pa.table(columns).replace_schema_metadata({b"about": about})


def _captions(path):
    """The captions of a parquet file as one Arrow array, nulls as ""; None if none."""
    if path is None:
        return None
    try:
        with pq.ParquetFile(path) as file:
            column = next((n for n in CAPTIONS if n in file.schema_arrow.names), None)
            if column is None:
                return None
            table = file.read([column])
        found = table.column(0).cast(pa.large_string()).combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise BadInput(
            f"{path} is no readable parquet file of captions ({error}); write it again."
        ) from error
    return _as_text(pc.fill_null(found, ""))


def _as_text(found):
    """Arrow strings as valid Unicode without NUL; writers do not always check."""
    if _is_valid(found) and not pc.any(pc.match_substring(found, "\0")).as_py():
        return found
    raw = found.cast(pa.large_binary()).to_pylist()
    return pa.array([valid(decode(data).text) for data in raw], pa.large_string())


def _is_valid(found):
    try:
        found.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _check_lengths(files):
    """files: (path, rows or None) of one part."""
    (first, image), *others = files
    for path, rows in others:
        if rows is not None and len(rows) != len(image):
            raise BadInput(
                f"{path} has {len(rows)} rows and {first} has {len(image)}; row k of "
                "both must be one sample, write them again."
            )


def _norms(rows):
    """The length of every row, float32 [n]."""
    found = np.empty(len(rows), np.float32)
    for first in range(0, len(rows), CHUNK):
        x = rows[first : first + CHUNK].astype(np.float32)
        found[first : first + CHUNK] = np.sqrt(np.einsum("nd,nd->n", x, x))
    return found


def _fault(norms):
    """The number in REASONS of what is wrong with each row, 0 for nothing."""
    zero, broken = norms == 0, ~np.isfinite(norms)
    return zero * REASONS.index("all-zero row") + broken * 2


def _stamp(part):
    """What a part is recognised by: sizes and times of change."""
    states = [path.stat() for path in part if path is not None]
    return " ".join([str(VERSION), *(f"{s.st_size}/{s.st_mtime_ns}" for s in states)])


def _from_table(table):
    """PartIndex of a table, sharing its memory."""
    about = json.loads(table.schema.metadata[b"about"])
    rows = table["row"].combine_chunks().to_numpy()
    names = table.column_names
    captions = table["caption"].combine_chunks() if "caption" in names else None
    return PartIndex(rows, captions, tuple(about["norms"]), about["problems"])


def _load(place, stamp):
    """An index that was saved for this stamp, memory-mapped, else None."""
    try:
        whole = pa.memory_map(str(place)).read_buffer()
        index = index_files.unpacked(memoryview(whole))
        if index is None:
            return None
        table = pa.ipc.open_file(pa.py_buffer(index)).read_all()
        table.validate(full=True)
        if table.schema.metadata[b"stamp"].decode() != stamp:
            return None
        return _from_table(table)
    except DAMAGED:
        return None


def _packed(table):
    """The bytes of a table as an Arrow file."""
    out = pa.BufferOutputStream()
    with pa.ipc.new_file(out, table.schema) as file:
        file.write_table(table)
    return out.getvalue().to_pybytes()
