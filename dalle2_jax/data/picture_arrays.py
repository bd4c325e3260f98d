"""Pictures that Python hands over: one notion of them at every public function.

uint8 of 0 to 255, floats of -1 to 1, or PIL images; one picture or several. The kinds
are told apart by type and range, and what could be two things is refused: floats that
are never below 0 are most likely of 0 to 1, and would pass for pale pictures.
"""

from typing import Any

import numpy as np
from PIL import Image

from dalle2_jax.data.images import to_rgb
from dalle2_jax.errors import BadInput

SLACK = 1e-3  # beyond -1 and 1 that floats may be, by rounding


def as_floats(images: Any, count: int | None = None, name: str = "image") -> Any:
    """Pictures as float32 [n, y, x, 3] in [-1, 1].

    Args:
        images: uint8 [n, y, x, 3] or [y, x, 3], floats of the same shapes in [-1, 1], a
            PIL image, or a list of any of them, of one size.
        count: how many there must be; None: any number above 0.
        name: of the argument, for messages.

    Raises:
        BadInput: they are of another type, shape, range or number.
    """
    found = check_pictures(images, count, name)
    if found.dtype == np.uint8:
        return np.asarray(found, np.float32) / 127.5 - 1
    return found.astype(np.float32)


def as_bytes(images: Any, count: int | None = None, name: str = "images") -> Any:
    """Pictures as uint8 [n, y, x, 3], rounded half up; else as `as_floats`.

    What is uint8 [n, y, x, 3] is returned as it is, on whatever devices it lies.
    """
    found = check_pictures(images, count, name)
    if found.dtype == np.uint8:
        return found
    found = np.asarray(found, np.float32)
    return np.floor((np.clip(found, -1, 1) + 1) * 127.5 + 0.5).astype(np.uint8)


def check_pictures(images: Any, count: int | None = None, name: str = "image") -> Any:
    """Pictures as uint8 or floats [n, y, x, 3], as they are; else as `as_floats`."""
    found = _array(images, name)
    if found.ndim == 3:
        found = found[None]
    if found.ndim != 4 or found.shape[-1] != 3 or not all(found.shape):
        raise BadInput(
            f"{name} has the shape {list(found.shape)}; pictures are [n, y, x, 3], or "
            "one of them [y, x, 3], RGB last."
        )
    if count is not None and len(found) != count:
        raise BadInput(f"{name} holds {len(found)} pictures; give {count}.")
    if found.dtype == np.uint8:
        return found
    if not np.issubdtype(found.dtype, np.floating) and found.dtype.name != "bfloat16":
        raise BadInput(
            f"{name} is {found.dtype}; pictures are uint8 of 0 to 255, floats of -1 to "
            "1, or PIL images."
        )
    _check_range(found, name)
    return found


def _array(images: Any, name: str) -> Any:
    """One array of an array, of a PIL image, or of a list of either."""
    if hasattr(images, "dtype") and hasattr(images, "ndim"):
        return images
    if isinstance(images, Image.Image):
        return _of_pil(images, name)[None]
    if not isinstance(images, list | tuple) or not len(images):
        said = f"{type(images).__name__}{'' if images is None else ' without pictures'}"
        raise BadInput(
            f"{name} is {said}; give pictures as arrays [n, y, x, 3] or PIL images."
        )
    parts = [np.asarray(_array(one, f"{name}[{i}]")) for i, one in enumerate(images)]
    parts = [one[0] if one.ndim == 4 and len(one) == 1 else one for one in parts]
    for i, one in enumerate(parts):
        if one.shape != parts[0].shape or one.dtype != parts[0].dtype:
            raise BadInput(
                f"{name}[{i}] is {one.dtype} {list(one.shape)} and {name}[0] is "
                f"{parts[0].dtype} {list(parts[0].shape)}; bring them to one size and "
                "type."
            )
    return np.stack(parts)


def _of_pil(image: Image.Image, name: str) -> np.ndarray:
    try:
        return np.asarray(to_rgb(image))
    except (OSError, ValueError) as error:
        raise BadInput(f"{name} cannot be read ({error}).") from error


def _check_range(found: Any, name: str) -> None:
    """Raises BadInput for floats that are not clearly of -1 to 1."""
    low, high = float(found.min()), float(found.max())
    if not -1 - SLACK <= low <= high <= 1 + SLACK:
        raise BadInput(
            f"{name} holds floats of {low:g} to {high:g}; floats of pictures lie in "
            "[-1, 1]: give uint8, or divide by 127.5 and subtract 1."
        )
    if 0 <= low < 1:  # all white is the same in both
        raise BadInput(
            f"{name} holds floats of {low:g} to {high:g}, which look like 0 to 1; "
            "floats of pictures lie in [-1, 1]: multiply by 2 and subtract 1, or give "
            "uint8."
        )
