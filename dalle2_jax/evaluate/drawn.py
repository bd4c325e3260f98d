"""Folders of drawn pictures: what `dalle2 sample` wrote, read back by caption."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from dalle2_jax.errors import BadInput


def read_folder(folder):
    """{caption: [uint8 [y, x, 3]]} of the PNGs that say what they were drawn for.

    Raises:
        BadInput: there are none, or one cannot be read.
    """
    found = {}
    for path in sorted(Path(folder).glob("*.png")):
        try:
            with Image.open(path) as image:
                facts = json.loads(image.info.get("dalle2", "{}"))
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, ValueError, UnidentifiedImageError) as error:
            raise BadInput(
                f"{path} cannot be read ({error}); draw it again."
            ) from error
        if "caption" in facts:
            found.setdefault(facts["caption"], []).append(pixels)
    if not found:
        raise BadInput(f"{folder} holds no picture of `dalle2 sample` with a caption.")
    return found
