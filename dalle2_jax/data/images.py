"""Encoded pictures -> square uint8 RGB arrays, or one sentence on why not."""

import contextlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dalle2_jax.errors import BadInput

MOST_PIXELS = 200_000_000  # of one file, and of all that are in the making at once
LARGE = MOST_PIXELS // 16  # more than that is decoded by one worker process at a time
ORIENTATION = 0x0112  # EXIF tag
ASIDE = (5, 6, 7, 8)  # values of it that swap width and height
READ = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
Image.init()  # Pillow reads more, some (EPS) by starting other programs
FORMATS = tuple(name for name in READ if name in Image.OPEN)


class Described(NamedTuple):
    """What a picture file says of itself, before it is decoded.

    kind: "JPEG", ...; mode: PIL's; size: (width, height); info: PIL's, text chunks too.
    """

    kind: str
    mode: str
    size: tuple[int, int]
    info: dict


class _Room:
    """Pixels that the threads of this process decode at once, MOST_PIXELS at most."""

    def __init__(self) -> None:
        self.left, self.change = MOST_PIXELS, threading.Condition()
        self.lock: AbstractContextManager = contextlib.nullcontext()

    @contextlib.contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Waits until there is room for a picture."""
        with self.change:
            self.change.wait_for(lambda: self.left >= pixels)
            self.left -= pixels
        try:
            with self.lock if pixels > LARGE else contextlib.nullcontext():
                yield
        finally:
            with self.change:
                self.left += pixels
                self.change.notify_all()


_ROOM = _Room()


def share_room(lock: AbstractContextManager) -> None:
    """Has this process decode large pictures only while it holds a lock.

    lock: one that all processes share which decode side by side.
    """
    _ROOM.lock = lock


def decode(data: bytes, size: int, name: str = "picture") -> np.ndarray:
    """bytes of a JPEG, PNG, WebP, ... -> uint8 [size, size, 3], RGB.

    EXIF rotation is applied, transparency shows white, the shorter side is scaled to
    `size` (antialiased bicubic) and the centre is cut out.

    Raises:
        BadInput: not a picture, cut off, or too large; says which `name`.
    """

    def prepare(image: Image.Image) -> None:
        image.draft(
            "RGB", (2 * size, 2 * size)
        )  # JPEG: skips detail that is not needed

    return read_image(data, name, lambda image: _square(image, size), prepare)


def decode_whole(data: bytes, most: int, name: str = "picture") -> np.ndarray:
    """bytes of a picture -> uint8 [y, x, 3], RGB, as large as it is.

    Raises:
        BadInput: as `decode`, or a side is longer than `most` pixels.
    """

    def small_enough(image: Image.Image) -> None:
        if max(image.size) > most:
            sides = f"{image.width} x {image.height}"
            raise BadInput(f"{name} is {sides}; at most {most} pixels a side.")

    def whole(image: Image.Image) -> np.ndarray:
        return np.asarray(to_rgb(ImageOps.exif_transpose(image)))

    return read_image(data, name, whole, small_enough)


def describe(data: bytes, name: str = "picture") -> Described:
    """What an encoded picture says of itself; nothing is decoded.

    Raises:
        BadInput: as `decode`.
    """
    with _told(name), _opened(data) as image:
        return Described(image.format, image.mode, image.size, dict(image.info))


def read_image(
    data: bytes,
    name: str,
    read: Callable[[Image.Image], Any],
    prepare: Callable[[Image.Image], None] = lambda image: None,
) -> Any:
    """read(image) of an encoded picture, which is opened here and nowhere else.

    Only formats that Pillow reads by itself; threads wait where the pictures in the
    making are too many pixels together.

    Args:
        data: the file's bytes.
        name: for messages.
        read: takes a PIL image that is loaded.
        prepare: takes it before that.

    Raises:
        BadInput: as `decode`.
    """
    with _told(name), _opened(data) as image:
        prepare(image)
        with _ROOM.of(image.width * image.height):
            image.load()
            return read(image)


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """One sentence for whatever a picture's decoder raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BadInput:
        raise
    except UnidentifiedImageError as error:
        raise BadInput(f"{name} is no picture in a known format.") from error
    except (Image.DecompressionBombError, MemoryError) as error:
        raise BadInput(f"{name} is too large to be decoded safely.") from error
    except Exception as error:  # decoders of hostile bytes raise anything
        said = str(error) or type(error).__name__
        raise BadInput(f"{name} is damaged or cut off ({said}).") from error


def _opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MOST_PIXELS:
        raise Image.DecompressionBombError
    return image


def shown_size(data: bytes, name: str = "picture") -> tuple[int, int]:
    """(width, height) of an encoded picture as it is shown, EXIF rotation applied.

    Raises:
        BadInput: as `decode`.
    """
    with _told(name), _opened(data) as image:
        aside = image.getexif().get(ORIENTATION, 1) in ASIDE
        return image.size[::-1] if aside else image.size


def _square(image: Image.Image, size: int) -> np.ndarray:
    turned = image.getexif().get(ORIENTATION, 1) != 1
    image = to_rgb(ImageOps.exif_transpose(image) if turned else image)
    if image.size == (size, size):
        return np.asarray(image)
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box))


def to_rgb(image: Image.Image) -> Image.Image:
    """A PIL image of any mode -> RGB, transparency on white, deep greys at 8 bit.

    Raises:
        ValueError: greys that are not finite, negative, or beyond 16 bits.
    """
    if image.mode == "RGB":
        if "transparency" not in image.info:
            return image
        image = image.convert("RGBA")
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(image)
    if image.mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits, or floats: brought to the range that its values fill.

    Floats up to 1 are shares of white; else white is 255, or 65535 where the values
    exceed 8 bits.
    """
    values = np.asarray(image, np.float64)
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 65535:
        raise ValueError(f"greys of {low:g} to {high:g}, which have no known white")
    white = 255
    if image.mode.startswith("I;16") or high > 255:
        white = 65535
    elif image.mode == "F" and high <= 1:
        white = 1
    values = values * 255 / white
    grey = np.floor(values + 0.5 if image.mode == "F" else values).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
