"""Folders of pictures with KEY.txt or KEY.json beside them, read as tar shards are.

Each folder that holds pictures is one shard; subfolders are others. A member is a
span of all files laid end to end in the order of their names, one byte apart.
"""

import hashlib
import os
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

from dalle2_jax.data.sample_members import (
    NAME,
    PICTURES,
    Contents,
    Member,
    add_member,
    drop_unusable,
    is_hidden,
    is_unsafe,
    note,
    parsed,
    readable,
)
from dalle2_jax.data.text import decode, is_blank, trimmed, valid
from dalle2_jax.errors import BadInput


class Listing(NamedTuple):
    """The files of a folder, sorted: names, sizes in bytes, where each begins.

    stamp: changes when a file is added, removed, renamed, resized or written.
    """

    names: list[str]
    sizes: list[int]
    starts: list[int]
    stamp: str


def listing_of(folder: str | Path) -> Listing:
    """Lists the files in a folder; hidden ones are left out.

    Raises:
        OSError: it cannot be read.
    """
    with os.scandir(folder) as entries:
        files = [e for e in entries if not is_hidden(e.name) and e.is_file()]
        states = [(e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in files]
    states.sort()
    names, sizes = [name for name, _, _ in states], [size for _, size, _ in states]
    starts = [0]
    for size in sizes[:-1]:
        starts.append(starts[-1] + size + 1)
    stamp = hashlib.sha256(ascii(states).encode()).hexdigest()
    return Listing(names, sizes, starts, stamp)


def folder_stamp(folder: str | Path) -> str:
    """What the files of a folder are recognised by. See `listing_of`."""
    return listing_of(folder).stamp


def split_file(name: str) -> tuple[str, str]:
    """KEY and extension of a file: all before its last dot, and what follows."""
    stem, _, extension = name.rpartition(".")
    return stem, extension.lower()


def has_pictures(folder: str | Path) -> bool:
    """Whether a folder itself, not a subfolder, holds files that are named pictures."""
    with os.scandir(folder) as entries:
        return any(_is_picture(e.name) and e.is_file() for e in entries)


def _is_picture(name):
    return not is_hidden(name) and split_file(name)[1] in PICTURES


def picture_folders(folder: str | Path) -> list[str]:
    """A folder and its subfolders, as far as they hold pictures, in order of names."""
    found = []
    for place, below, _ in os.walk(Path(folder)):
        below[:] = sorted(name for name in below if not is_hidden(name))
        if has_pictures(place):
            found.append(place)
    return found


def captions_beside(files: list[Path]) -> list[str] | None:
    """The captions in KEY.txt, or else KEY.json, beside pictures; None unless all have
    one."""
    found = []
    for path in files:
        said = _caption_beside(path)
        if not said:
            return None
        found.append(said)
    return found or None


def _caption_beside(path):
    text, meta = path.with_suffix(".txt"), path.with_suffix(".json")
    said = trimmed(decode(text.read_bytes()).text) if text.is_file() else ""
    if is_blank(said) and meta.is_file():
        fields = parsed(meta.read_bytes()) or {}
        said = fields.get("caption")
        said = trimmed(valid(said)) if isinstance(said, str) else ""
    return "" if is_blank(said) else said


def contents_of_folder(folder: str | Path) -> Contents:
    """The samples of a folder: its pictures, and what lies beside them by name.

    Raises:
        BadInput: a file changes meanwhile.
        OSError: one cannot be read.
    """
    listing, found = listing_of(folder), Contents({}, {}, {})
    reader = FolderReader(folder, listing)
    names = list(map(readable, listing.names))
    keys = {split_file(name)[0] for name in names if _is_picture(name)}
    for name, size, start in zip(names, listing.sizes, listing.starts):
        key, extension = split_file(name)
        if key not in keys:
            continue  # a README or a table beside the pictures
        if is_unsafe(name):
            note(found.problems, NAME, ascii(key)[1:-1])
            continue

        def read(start=start, size=size):
            return reader.read(start, size)

        member = Member(key, extension, (start, size), read, beside=True)
        problem = add_member(member, found)
        if problem:
            note(found.problems, problem, key)
    drop_unusable(found)
    return found


class FolderReader:
    """Reads the files of a folder by their spans.

    Args:
        folder: of the files.
        listing: of it when the spans were made.
    """

    def __init__(self, folder: str | Path, listing: Listing):
        self.folder, self.listing = folder, listing

    def read(self, offset: int, length: int) -> bytes:
        """The bytes of the file that begins at `offset`.

        Raises:
            BadInput: it is of another length now, or gone.
        """
        number = bisect_right(self.listing.starts, offset) - 1
        path = Path(self.folder, self.listing.names[number])
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BadInput(f"{path} cannot be read ({error.strerror}).") from error
        if self.listing.starts[number] != offset or len(data) != length:
            raise changed(path)
        return data


def changed(path: str | Path) -> BadInput:
    """What to raise where files are not those that were indexed."""
    return BadInput(
        f"{path} has changed since it was indexed; run the same command again when "
        "nothing writes there."
    )
