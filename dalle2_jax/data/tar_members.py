"""One pass over a tar shard: its members by sample, and what is wrong with them.

Nothing is extracted. `cat a.tar b.tar` is one shard; keys of b that a has, too, are
duplicates.
"""

import tarfile
from typing import BinaryIO, NamedTuple

from dalle2_jax.data.sample_members import (
    AFTER,
    CUT,
    EARLY,
    EMPTY,
    FATAL,
    LINK,
    LONGEST_NAME,
    NAME,
    NO_END,
    NO_TAR,
    PICTURES,
    SPARSE,
    TWICE,
    Contents,
    Member,
    add_member,
    drop_unusable,
    is_hidden,
    is_unsafe,
    note,
    readable,
    split,
)

BLOCK = 512
CHUNK = 2048 * BLOCK  # bytes that are looked through at once for what follows the end
NEEDED = (*PICTURES, "txt", "json")
# What tarfile raises on garbage; OSError is the disk's or the network's own fault.
GARBAGE = (tarfile.TarError, ValueError, OverflowError, EOFError, IndexError)
GARBAGE += (RecursionError, MemoryError, KeyError, TypeError)


class Archive(NamedTuple):
    """One tar of a shard while it is read.

    loose: full name -> span of members that are of no sample; a link may lead there.
    """

    file: BinaryIO
    size: int
    found: Contents
    loose: dict


def contents_of(file: BinaryIO, size: int) -> Contents:
    """Reads every header of a tar, its captions and its JSON members.

    Args:
        file: the tar, open for reading bytes, with seek.
        size: its length in bytes.

    Returns:
        Contents; keys with a problem are not among the samples, but for duplicates,
        of which the first is kept if its members lie together.
    """
    whole, start = Contents({}, {}, {}), 0
    while start is not None:
        found = Contents({}, {}, {})
        start = _read_archive(Archive(file, size, found, {}), start)
        drop_unusable(found)
        _append(whole, found)
    if not whole.samples and not whole.problems:
        note(whole.problems, EMPTY)
    return whole


def _append(whole, found):
    """Adds what one archive holds to what the ones before it hold."""
    gone = {key for reason in FATAL for key in whole.problems.get(reason, ())}
    for key, sample in found.samples.items():
        if key in whole.samples or key in gone:
            note(whole.problems, TWICE, key)
        else:
            whole.samples[key] = sample
    for reason, keys in found.problems.items():
        whole.problems.setdefault(reason, []).extend(keys)
    for reason, keys in found.notes.items():
        whole.notes.setdefault(reason, []).extend(keys)


def _read_archive(archive, start):
    """Reads one tar from `start`; the place of a tar that follows it, or None."""
    archive.file.seek(start)
    problems = archive.found.problems
    try:
        tar = tarfile.TarFile(fileobj=archive.file, mode="r", encoding="utf-8")
    except GARBAGE:
        return note(problems, EARLY if start else NO_TAR)
    with tar:
        try:
            for member, beside in _headers(tar, start):
                _add(archive, member, beside)
        except GARBAGE:
            return note(problems, EARLY)
        return _after(archive, tar.offset)


def _headers(tar, place):
    """Iterates over (member of a tar, whether the one before it had the same key)."""
    last = None
    while (member := tar.next()) is not None:
        if member.size < 0 or tar.offset <= place:
            raise tarfile.ReadError("a header that leads back")  # would never end
        place = tar.offset
        tar.members.clear()  # a million headers are not needed in memory
        key, hidden = split(member.name)[0], is_hidden(member.name)
        yield member, key == last
        last = last if hidden else key


def _after(archive, end):
    """Looks at what follows the last member; where another tar begins, or None."""
    file, problems = archive.file, archive.found.problems
    file.seek(end)
    first, second = file.read(BLOCK), file.read(BLOCK)
    if not first:
        return note(problems, NO_END)
    if any(first):  # a broken header, where the end mark should be
        return note(problems, EARLY)
    place = end + BLOCK
    if not any(second):
        place = _first_other(file, end)
        if place is None:
            return None
        file.seek(place)
        if _is_header(file.read(BLOCK)):
            return place
    return note(problems, EARLY if any(second) else AFTER)


def _first_other(file, place):
    """The place of the first block that is not zero, or None."""
    file.seek(place)
    while chunk := file.read(CHUNK):
        rest = chunk.lstrip(b"\0")
        if rest:
            return place + (len(chunk) - len(rest)) // BLOCK * BLOCK
        place += len(chunk)
    return None


def _is_header(block):
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except GARBAGE:
        return False
    return True


def _add(archive, member, beside):
    """Files one member under its sample, or notes why not."""
    name = readable(member.name)
    key, extension = split(name)
    if is_hidden(name) or key.startswith("__"):
        return  # of macOS, or webdataset's own
    if not member.isreg() and not member.issym() and not member.islnk():
        return
    if not extension:
        archive.loose[name] = (member.offset_data, member.size)
        return
    if is_unsafe(name):
        key, problem = ascii(key)[1:-1][:LONGEST_NAME], NAME
    else:
        problem = _place(archive, member, key, extension, beside)
    if problem:
        note(archive.found.problems, problem, key)


def _place(archive, member, key, extension, beside):
    """Finds a member's bytes and adds it; what is wrong with it, or None."""
    span = (member.offset_data, member.size)
    if member.issparse() or any(n.startswith("GNU.sparse") for n in member.pax_headers):
        return SPARSE
    if not member.isreg():
        span = None if member.issym() else _linked(archive, member)
        if span is None:
            return LINK if extension in NEEDED else None
    if sum(span) > archive.size:
        return CUT

    def read():
        archive.file.seek(span[0])
        return archive.file.read(span[1])

    return add_member(Member(key, extension, span, read, beside), archive.found)


def _linked(archive, member):
    """The span of the earlier member that a hard link leads to, or None."""
    name = readable(member.linkname)
    key, extension = split(name)
    sample = archive.found.samples.get(key)
    if sample and extension in sample.spans:
        twice = key in archive.found.problems.get(TWICE, ())
        return None if twice else sample.spans[extension]
    return archive.loose.get(name)
