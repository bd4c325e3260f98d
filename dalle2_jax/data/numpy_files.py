"""Arrays in numpy's files, .npy and .npz, read without running anything."""

import io
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dalle2_jax.errors import BadInput

# What numpy and zipfile raise on garbage, and where a header claims more than there is.
GARBAGE = (OSError, ValueError, EOFError, AttributeError, MemoryError, OverflowError)
GARBAGE += (RecursionError, SyntaxError, KeyError, TypeError, NotImplementedError)
GARBAGE += (RuntimeError, zipfile.BadZipFile, zlib.error, tokenize.TokenError)


def array_in(data: bytes) -> np.ndarray:
    """The array in the bytes of a .npy file.

    Raises:
        ValueError: they hold none.
    """
    try:
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except GARBAGE as error:
        raise ValueError(f"no .npy file ({_said(error)})") from error


def mapped(path: str | Path) -> np.ndarray:
    """The array of a .npy file, memory-mapped for reading.

    Raises:
        BadInput: absent, cut off, or anything else.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except GARBAGE as error:
        raise BadInput(
            f"{path} is no readable .npy file ({_said(error)}); write it again."
        ) from error


def arrays_of(
    path: str | Path, wanted: Callable[[str], bool] = lambda name: True
) -> dict[str, np.ndarray | None]:
    """The arrays of an .npz.

    Args:
        path: of the file.
        wanted: name -> whether it is read; the others are None.

    Raises:
        BadInput: absent, no .npz, or it holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            names = file.files
            found = {name: file[name] if wanted(name) else None for name in names}
    except FileNotFoundError as error:
        raise BadInput(f"{path} does not exist; check the path.") from error
    except GARBAGE as error:
        raise BadInput(
            f"{path} is no .npz file of plain arrays ({_said(error)})."
        ) from error
    other = next((name for name in names if isinstance(found[name], bytes)), None)
    if other is not None:  # numpy gives a member that is no .npy file as it is
        raise BadInput(f"{path} is no .npz file of plain arrays ({other!r} is none).")
    return found


def _said(error):
    """An error in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
