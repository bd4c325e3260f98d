"""One pass over a tar shard: its members by sample, and what is wrong with them.

Nothing is extracted; a member is a span (offset, length) of the file.
"""

import json
import tarfile
from typing import NamedTuple

BLOCK = 512
LONGEST_NAME = 512  # letters
MOST_BYTES = {"json": 2**22, "txt": 2**20}  # of one member; others:
MOST_OTHER = 2**28
EARLY, NO_TAR, EMPTY = "the shard ends early", "no tar file", "empty shard"
CUT, NAME, TWICE = "cut off", "unsafe name", "duplicate key"
JSON, LARGE = "broken JSON", "member too large"
# What tarfile raises on garbage; OSError is the disk's or the network's own fault.
GARBAGE = (tarfile.TarError, ValueError, OverflowError, EOFError, IndexError)
GARBAGE += (RecursionError, MemoryError, KeyError, TypeError)


class Sample(NamedTuple):
    """spans: extension -> (offset, length); fields: the numbers in its JSON."""

    spans: dict
    fields: dict
    said: set  # which of "txt", "json" hold a caption


class Contents(NamedTuple):
    """samples: key -> Sample; problems: reason -> [key, ...], "": the whole shard."""

    samples: dict
    problems: dict


def contents_of(file, size):
    """Reads every header of a tar, its captions and its JSON members.

    Args:
        file: the tar, open for reading bytes, with seek.
        size: its length in bytes.

    Returns:
        Contents; keys with a problem are not among the samples, but for duplicates,
        of which the first is kept.
    """
    found = Contents({}, {})
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in _headers(tar, found):
                _add(file, size, member, found)
    except GARBAGE:
        _note(found, NO_TAR if not found.samples else EARLY)
    if not found.samples and not found.problems:
        _note(found, EMPTY)
    for reason in (CUT, JSON, NAME, LARGE):
        for key in found.problems.get(reason, ()):
            found.samples.pop(key, None)
    return found


def _note(found, reason, key=""):
    keys = found.problems.setdefault(reason, [])
    if key not in keys[-1:]:
        keys.append(key)


def _headers(tar, found):
    """The members of a tar; notes where it breaks off before its end."""
    while True:
        try:
            member = tar.next()
        except GARBAGE:
            return _note(found, EARLY)
        if member is None:
            break
        tar.members.clear()  # a million headers are not needed in memory
        yield member
    tar.fileobj.seek(tar.offset)
    if any(tar.fileobj.read(BLOCK)):  # a broken header, where the end mark should be
        _note(found, EARLY)
    return None


def split(name):
    """KEY and extension: webdataset parts the base name at its first dot."""
    folder, _, base = name.removeprefix("./").rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{folder}/{stem}" if folder else stem, extension.lower()


def _unsafe(name):
    return (
        name.startswith("/") or ".." in name.split("/") or not name.isprintable()
    ) or len(name) > LONGEST_NAME


def _add(file, size, member, found):
    """Files one member under its sample, or notes why not."""
    key, extension = split(member.name)
    if not member.isreg() or key.startswith("__") or not extension:
        return
    if _unsafe(member.name):
        key, problem = ascii(key)[1:-1][:LONGEST_NAME], NAME
    else:
        problem = _file(file, size, member, found.samples)
    if problem:
        _note(found, problem, key)


def _file(file, size, member, samples):
    """Puts a member's span into its sample; what is wrong with it, or None."""
    key, extension = split(member.name)
    sample = samples.setdefault(key, Sample({}, {}, set()))
    span = (member.offset_data, member.size)
    if sum(span) > size:
        return CUT
    if member.size > MOST_BYTES.get(extension, MOST_OTHER):
        return LARGE
    if extension in sample.spans:
        return TWICE
    sample.spans[extension] = span
    if extension not in MOST_BYTES or not member.size:
        return None
    file.seek(member.offset_data)
    return _look_into(sample, extension, file.read(member.size))


def _look_into(sample, extension, data):
    """Notes captions and numbers while the file is at this place anyway."""
    if extension == "txt":
        sample.said.update(["txt"] if data.strip() else [])
        return None
    fields = parsed(data)
    if fields is None:
        return JSON
    said = fields.get("caption")
    sample.said.update(["json"] if isinstance(said, str) and said.strip() else [])
    sample.fields.update(numbers(fields))
    return None


def parsed(data):
    """The dict that a JSON member holds, or None where it holds none."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def numbers(fields):
    """{lower-cased name: float} of the top-level numbers."""
    found = {}
    for name, value in fields.items():
        if isinstance(value, (int, float)) and len(name) <= LONGEST_NAME:
            try:
                found.setdefault(name.lower(), float(value))
            except OverflowError:
                continue
    return found
