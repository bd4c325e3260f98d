"""The members of a shard's samples: where they lie, and what is wrong with them.

A shard is a tar or a folder; a member is a span (offset, length) of it.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

from dalle2_jax.data.text import decode, is_blank, valid

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "avif", "jfif", "jpe")
PICTURES += ("tiff", "tif", "jp2", "ppm", "pgm", "pbm", "pnm")
LONGEST_NAME = 512  # letters
MOST_BYTES = {"json": 2**22, "txt": 2**20}  # of one member; others:
MOST_OTHER = 2**28
EARLY, NO_END, NO_TAR = "the shard ends early", "no end mark", "no tar file"
EMPTY, AFTER = "empty shard", "something after the end mark"
CUT, NAME, TWICE = "cut off", "unsafe name", "duplicate key"
JSON, LARGE = "broken JSON", "member too large"
SPARSE, LINK = "sparse member", "link to no earlier member"
NO_CAPTION, NO_PICTURE = "no caption", "no picture"
DOTTED = "dot before the picture's extension"
NOT_UTF8 = "not UTF-8, read as cp1252"  # a note: the sample is used
FATAL = (CUT, JSON, NAME, LARGE, SPARSE, LINK)  # no sample of that key is used
REMEDIES = {  # what to do, for `dalle2 data inspect` and messages
    NO_END: "the tar may have been cut off; copy or write it again",
    AFTER: "what follows the end of the tar is not read; write the tar again",
    NAME: "names with control characters, '..' or over 512 letters are not read; "
    "rename the files",
    SPARSE: "write the tar without --sparse (-S)",
    LINK: "write the tar with --dereference (-h) and --hard-dereference",
    DOTTED: "a key ends at the FIRST dot of a name (webdataset's rule); rename "
    "photo_v1.0.jpg to photo_v1_0.jpg, and its caption alike",
    NO_CAPTION: "give each picture a KEY.txt, or a caption in its KEY.json",
    JSON: "mend or remove the .json member",
    NOT_UTF8: "save the captions as UTF-8",
}
HALF = re.compile(r"\\ud[89a-f]", re.IGNORECASE)  # JSON's escape of half a pair


class Sample(NamedTuple):
    """One sample of a shard.

    spans: extension -> (offset, length); fields: the numbers in its JSON; said: which
    of "txt", "json" hold a caption; state: of SCATTERED, CLOSED.
    """

    spans: dict
    fields: dict
    said: set
    state: set


SCATTERED = "members of other keys lie between its own"
CLOSED = "a member came twice; what follows belongs to another sample"


class Contents(NamedTuple):
    """What lies in a shard.

    samples: key -> Sample; problems: reason -> [key, ...], "": the whole shard; notes:
    the same of samples that are used all the same.
    """

    samples: dict
    problems: dict
    notes: dict


class Member(NamedTuple):
    """A member of the sample `key`: its extension and span, and what reads its bytes.

    beside: whether the member before it was of the same key.
    """

    key: str
    extension: str
    span: tuple[int, int]
    read: Callable[[], bytes]
    beside: bool


def note(where: dict, reason: str, key: str = "") -> None:
    """Adds a key to the problems or notes of a shard, once in a row."""
    keys = where.setdefault(reason, [])
    if key not in keys[-1:]:
        keys.append(key)


def split(name: str) -> tuple[str, str]:
    """KEY and extension: webdataset parts the base name at its first dot."""
    folder, _, base = name.removeprefix("./").rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{folder}/{stem}" if folder else stem, extension.lower()


def readable(name: str) -> str:
    """A file's name without a root; bytes that are no UTF-8 are read as cp1252."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        name = decode(name.encode("utf-8", "surrogateescape")).text
    return name.removeprefix("./").lstrip("/")


def is_hidden(name: str) -> bool:
    """Whether a file is one that systems hide, such as macOS's ._NAME."""
    return name.rpartition("/")[2].startswith(".") or "__MACOSX" in name.split("/")


def is_unsafe(name: str) -> bool:
    """Whether a name cannot be shown or leads out of its folder."""
    if len(name) > LONGEST_NAME or ".." in name.split("/"):
        return True
    if name.isprintable():
        return False
    return any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name)


def add_member(member: Member, found: Contents) -> str | None:
    """Files a member under its sample and looks into captions and JSON.

    Returns:
        What is wrong with it, or None.
    """
    extension, (_, length) = member.extension, member.span
    new = member.key not in found.samples
    fresh = Sample({}, {}, set(), set())
    sample = found.samples.setdefault(member.key, fresh)
    if length > MOST_BYTES.get(extension, MOST_OTHER):
        return LARGE
    if extension in sample.spans:
        sample.state.add(CLOSED)
    if CLOSED in sample.state:
        return TWICE
    if not new and not member.beside:
        sample.state.add(SCATTERED)
    sample.spans[extension] = member.span
    if extension not in MOST_BYTES or not length:
        return None
    return _look_into(sample, member, found.notes)


def drop_unusable(found: Contents) -> None:
    """Takes out samples with a fatal problem, and those of which nobody knows which
    of two files of one name belongs to them."""
    for reason in FATAL:
        for key in found.problems.get(reason, ()):
            found.samples.pop(key, None)
    for key in found.problems.get(TWICE, ()):
        if key in found.samples and SCATTERED in found.samples[key].state:
            del found.samples[key]


def _look_into(sample, member, notes):
    """Notes captions and numbers while the file is at this place anyway."""
    data = member.read()
    text, sure = decode(data)
    if not sure:
        note(notes, NOT_UTF8, member.key)
    if member.extension == "txt":
        sample.said.update([] if is_blank(text) else ["txt"])
        return None
    try:
        fields = _loaded(data)
    except ValueError:
        return JSON
    if not isinstance(fields, dict):
        return None  # a list or a string: nothing of ours, and no fault
    said = fields.get("caption")
    blank = not isinstance(said, str) or is_blank(said)
    sample.said.update([] if blank else ["json"])
    sample.fields.update(numbers(fields))
    return None


def parsed(data: bytes) -> dict | None:
    """The dict that a JSON member holds, its strings valid Unicode; None: no dict."""
    try:
        fields = _loaded(data)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def _loaded(data):
    """What JSON bytes hold. Raises ValueError."""
    encoding = json.detect_encoding(data)  # UTF-16 without a mark shows in its NULs
    plain = encoding.startswith("utf-8")
    text = decode(data).text if plain else data.decode(encoding, "replace")
    try:
        found = json.loads(text)
        if HALF.search(text):
            whole = json.dumps(found, ensure_ascii=False).encode("utf-8", "replace")
            found = json.loads(whole)
    except RecursionError as error:
        raise ValueError("too deep") from error
    return found


def numbers(fields: dict) -> dict[str, float]:
    """{lower-cased name: float} of the top-level numbers."""
    found = {}
    for name, value in fields.items():
        if isinstance(value, (int, float)) and len(name) <= LONGEST_NAME:
            try:
                found.setdefault(valid(name.lower()), float(value))
            except OverflowError:
                continue
    return found
