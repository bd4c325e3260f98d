"""Encoded pictures -> square uint8 RGB arrays, or one sentence on why not."""

import io
import struct
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dalle2_jax.errors import BadInput

MOST_PIXELS = 200_000_000  # more in one file is an attack or a mistake
ORIENTATION = 0x0112  # EXIF tag
ASIDE = (5, 6, 7, 8)  # values of it that swap width and height
READ = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
Image.init()  # Pillow reads more, some (EPS) by starting other programs
FORMATS = tuple(name for name in READ if name in Image.OPEN)


def decode(data, size, name="picture"):
    """bytes of a JPEG, PNG, WebP, ... -> uint8 [size, size, 3], RGB.

    EXIF rotation is applied, transparency shows white, the shorter side is scaled to
    `size` (antialiased bicubic) and the centre is cut out.

    Raises:
        BadInput: not a picture, cut off, or too large; says which `name`.
    """
    return _guarded(data, name, lambda image: _square(image, size))


def decode_whole(data, most, name="picture"):
    """bytes of a picture -> uint8 [y, x, 3], RGB, as large as it is.

    Raises:
        BadInput: as `decode`, or a side is longer than `most` pixels.
    """

    def whole(image):
        if max(image.size) > most:
            sides = f"{image.width} x {image.height}"
            raise BadInput(f"{name} is {sides}; at most {most} pixels a side.")
        return np.asarray(to_rgb(ImageOps.exif_transpose(image)))

    return _guarded(data, name, whole)


def _guarded(data, name, read):
    """read(image) of an encoded picture, or one sentence on why not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read(Image.open(io.BytesIO(data), formats=FORMATS))
    except BadInput:
        raise
    except UnidentifiedImageError as error:
        raise BadInput(f"{name} is no picture in a known format.") from error
    except Image.DecompressionBombError as error:
        raise BadInput(f"{name} is too large to be decoded safely.") from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error) as error:
        raise BadInput(f"{name} is damaged or cut off ({error}).") from error


def shown_size(file):
    """(width, height) of a picture file as it is shown, EXIF rotation applied.

    file: path or stream of a picture that `decode` took.
    """
    with Image.open(file, formats=FORMATS) as image:
        aside = image.getexif().get(ORIENTATION, 1) in ASIDE
        return image.size[::-1] if aside else image.size


def _square(image, size):
    if image.width * image.height > MOST_PIXELS:
        raise Image.DecompressionBombError
    image.draft("RGB", (2 * size, 2 * size))  # JPEG: skips detail that is not needed
    image.load()
    turned = image.getexif().get(ORIENTATION, 1) != 1
    image = to_rgb(ImageOps.exif_transpose(image) if turned else image)
    if image.size == (size, size):
        return np.asarray(image)
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box))


def to_rgb(image):
    """A PIL image of any mode -> RGB, transparency on white, 16-bit scaled to 8."""
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


def _from_deep(image):
    """Grey of 16 or 32 bits, or floats: scaled down where it exceeds 8 bits."""
    values = np.asarray(image, np.float64)
    scale = 257.0 if image.mode.startswith("I;16") or values.max() > 255 else 1.0
    grey = np.clip(values / scale, 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
