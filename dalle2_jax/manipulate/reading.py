"""Given pictures and masks as a model reads them: square, of the size that it draws."""

from pathlib import Path

from dalle2_jax.data.images import decode, decode_whole, shown_size
from dalle2_jax.errors import BadInput

MOST_SIDE = 1024  # pixels that a given picture is read at


def picture_side(model):
    """Pixels of a side of what the model draws at the end, MOST_SIDE at most."""
    side = model.decoder.cfg.size
    for part in (model.upsampler, model.upsampler_2):
        side *= part.cfg.factor if part else 1
    return min(side, MOST_SIDE)


def read_picture(path, side, name=None):
    """A picture file as uint8 [side, side, 3], its centre cut out.

    Raises:
        BadInput: there is none, or it is no picture; says which `name` (default: path).
    """
    return decode(_bytes_of(path), side, name or str(path))


def read_whole(path, most=MOST_SIDE):
    """A picture file as uint8 [y, x, 3], as large as it is.

    Raises:
        BadInput: as `read_picture`, or a side is longer than `most` pixels.
    """
    return decode_whole(_bytes_of(path), most, str(path))


def read_mask(path, picture, side):
    """A mask file for a picture file: uint8 [side, side, 3], see `inpaint.mask_of`.

    Raises:
        BadInput: as `read_picture`, or it is not as large as the picture, both as they
            are shown (EXIF rotation applied).
    """
    pixels = read_picture(path, side)
    one, other = (shown_size(_bytes_of(p), str(p)) for p in (path, picture))
    if one != other:
        raise BadInput(
            f"{path} is {one[0]} x {one[1]}, {picture} {other[0]} x {other[1]}; make "
            "them equally large."
        )
    return pixels


def _bytes_of(path):
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}).") from error
