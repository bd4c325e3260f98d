"""Text of other people's files: decoded, made valid, told blank, parted into lines.

Whatever reads captions (shards, folders, caption files, CSV tables, standard input)
reads them here, so that one caption is the same string everywhere.
"""

import codecs
import csv
import html
import io
import logging
import re
from pathlib import Path
from typing import NamedTuple

import regex

from dalle2_jax.errors import BadInput

MARKS = (  # UTF-32 first: its mark begins as UTF-16's does
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
NO_SHOW = r"\s\p{Cc}\p{Cf}\p{Z}\p{Default_Ignorable_Code_Point}\u2800"
SHOWN = regex.compile(rf"[^{NO_SHOW}]")
# Joiners and variation selectors belong to the emoji they follow and stay.
EDGES = regex.compile(r"^[\s\p{Cc}\p{Z}\ufeff]+|[\s\p{Cc}\p{Z}\ufeff]+$")
ENDS = regex.compile(r"\r\n|\n|\r")
BINARY = re.compile(r"[\x01-\x08\x0e-\x1a\x1c-\x1f]")  # escape codes are text
COLUMN = "text"  # of a CSV file of captions
MOST_FIELD = 2**24  # letters of one field of a CSV file


class Decoded(NamedTuple):
    """The text of some bytes; sure: whether a mark or UTF-8 explains all of them."""

    text: str
    sure: bool


def decode(data: bytes) -> Decoded:
    """Bytes as text: a byte order mark decides, then UTF-8, then Windows' cp1252.

    UTF-8 that was cut inside its last letter stays UTF-8 where a letter before it shows
    that it is. Never fails; what no encoding explains becomes U+FFFD.
    """
    found = ((m, encoding) for m, encoding in MARKS if data.startswith(m))
    mark, encoding = next(found, (b"", "utf-8"))
    body = data[len(mark) :]
    try:
        return Decoded(valid(body.decode(encoding)), True)
    except UnicodeDecodeError as error:
        whole, cut = body[: error.start], error.reason == "unexpected end of data"
    if mark:
        return Decoded(valid(body.decode(encoding, "replace")), False)
    if cut and not whole.isascii():
        return Decoded(valid(whole.decode("utf-8")), False)
    return Decoded(valid(body.decode("cp1252", "replace")), False)


def valid(text: str) -> str:
    """Text that can be written: without NUL, and ? for halves of surrogate pairs."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def is_blank(text: str) -> bool:
    """Whether a caption shows nothing: white space, marks, zero-width characters.

    HTML entities count as what they stand for, as the tokenizer takes them.
    """
    if "&" in text:
        text = html.unescape(html.unescape(text))
    return SHOWN.search(text) is None


def trimmed(text: str) -> str:
    """Text without white space, control characters and marks at its ends."""
    return EDGES.sub("", text)


def lines_of(data: bytes, name: str | Path) -> list[str]:
    r"""The captions in a text, one a line that ends in \n, \r\n or \r; no blank ones.

    Other separators of Unicode (U+2028, form feed) stay inside a line.

    Args:
        data: the text.
        name: of its file, for messages.

    Raises:
        BadInput: it is no text.
    """
    return lines_in(_text_of(data, name))


def lines_in(text: str) -> list[str]:
    """The captions in a text, as `lines_of` parts it."""
    return [trimmed(line) for line in ENDS.split(text) if not is_blank(line)]


def read_captions(path: str | Path) -> list[str]:
    """The captions of a text file, one a line, or of a CSV file's column `text`.

    Blank ones are left out.

    Raises:
        BadInput: it cannot be read, or is a CSV file without that column.
    """
    if Path(path).suffix.lower() == ".csv":
        found = (trimmed(row[COLUMN]) for row in read_rows(path, (COLUMN,)))
        return [caption for caption in found if not is_blank(caption)]
    return lines_of(_bytes_of(path, "text file"), path)


def read_rows(path: str | Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV file as dicts; its first line names the columns.

    Args:
        path: of the file.
        columns: that it must have; what else is there is kept, too.

    Raises:
        BadInput: it cannot be read, lacks a column (says what it has), or a row is
            shorter than the first line.
    """
    text = _text_of(_bytes_of(path, "CSV file"), path)
    before = csv.field_size_limit(MOST_FIELD)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        rows = list(reader)
    except csv.Error as error:
        raise BadInput(
            f"{path} is no readable CSV file (line {reader.line_num}: {error})."
        ) from error
    finally:
        csv.field_size_limit(before)
    have = reader.fieldnames or []
    missing = [name for name in columns if name not in have]
    if missing:
        raise BadInput(f"{path} has no column `{missing[0]}`; {_told(have)}.")
    if any(row[name] is None for row in rows for name in columns):
        raise BadInput(f"{path} has a row that is cut short; export it again.")
    return rows


def _told(have):
    """What the first line of a CSV file names, or what parts it if not commas."""
    line = "".join(have)
    for letter, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(have) < 2 and letter in line:
            return f"its fields are parted by {name}; export it with commas"
    return f"its first line names {', '.join(have) or 'nothing'}"


def _text_of(data, name):
    """The text of a whole file; says where no mark and not UTF-8 explains it."""
    text, sure = decode(data)
    if not sure and BINARY.search(text):
        raise BadInput(f"{name} is no text file; save it as UTF-8 text.")
    if not sure:
        logging.getLogger(__name__).warning(
            "%s is not UTF-8 and was read as cp1252; save it as UTF-8.", name
        )
    return text


def _bytes_of(path, kind):
    try:
        return Path(path).read_bytes()
    except OSError as error:
        said = error.strerror or error
        raise BadInput(f"{path} is no readable {kind} ({said}).") from error
