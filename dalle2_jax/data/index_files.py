"""Index files: a first line that says whose they are, a check sum, the index.

Other programs keep files of like names beside the same data; only a file that begins
as ours is read, replaced or removed.
"""

import secrets
import zlib
from pathlib import Path

OURS = b"dalle2_jax index, made again when it is lost; check sum "
HEAD = 128  # bytes before the index itself, which may be memory-mapped
WRITE = 0o222  # permission bits


def packed(index: bytes) -> bytes:
    """The bytes of an index file."""
    return _head(index) + index


def _head(index):
    check = b"%08x" % zlib.crc32(index)
    return (OURS + check).ljust(HEAD - 1) + b"\n"


def is_ours(data: bytes) -> bool:
    """Whether the bytes of a file begin as an index of ours, of any version."""
    return data[: len(OURS)] == OURS


def unpacked(data: memoryview) -> memoryview | None:
    """The index in an index file, None where that is not ours or is damaged."""
    index = data[HEAD:]
    return index if data[:HEAD] == _head(index) else None


def save(place: Path, index: bytes) -> bool:
    """Writes an index whole or not at all.

    Returns:
        False where the folder is read-only or something that is not ours lies there.
    """
    draft = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.parent.stat().st_mode & WRITE:
            return False  # meant to stay as it is, even where root could write
        if is_taken(place):
            return False
        draft.write_bytes(packed(index))
        draft.replace(place)
    except OSError:
        draft.unlink(missing_ok=True)
        return False
    return True


def is_taken(place: Path) -> bool:
    """Whether a file, folder or broken link that is not ours lies at a place.

    Raises:
        OSError: a file lies there that cannot be read.
    """
    try:
        with place.open("rb") as file:
            return not is_ours(file.read(len(OURS)))
    except FileNotFoundError:
        return place.is_symlink()
    except IsADirectoryError:
        return True
