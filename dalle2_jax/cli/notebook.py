"""What the notebooks share: the model they run on, and pictures shown in a cell."""

import os
from pathlib import Path

DEFAULT = "../runs/quickstart/model"  # seen from notebooks/


def start():
    """Points jax at its cache of programs and finds the model.

    Returns:
        (model directory: $MODEL or DEFAULT; whether FAST=1 asks for small sizes).

    Raises:
        SystemExit: there is no such directory; one sentence, without a traceback.
    """
    from dalle2_jax.cli.machine import start_jax

    start_jax()
    import jax

    # jax may have been imported before, and reads its environment only then
    jax.config.update(
        "jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"]
    )
    folder = Path(os.environ.get("MODEL", DEFAULT))
    if not folder.is_dir():
        raise SystemExit(
            f"{folder} is no folder: `make quickstart` trains a model there in "
            "minutes; or set MODEL to a model directory and restart the kernel."
        )
    return folder, fast()


def fast():
    """Whether the environment variable FAST=1 asks for small sizes."""
    return os.environ.get("FAST") == "1"


def show(pictures, labels=(), columns=8):
    """The pictures as one PIL image, which a notebook shows as a cell's last value.

    Args:
        pictures: float [n, y, x, 3] in [-1, 1], or uint8.
        labels: words under each, or none.
        columns: pictures a row at most.
    """
    import numpy as np
    from PIL import Image

    from dalle2_jax.cli.pictures import contact_sheet
    from dalle2_jax.unclip import to_uint8

    pictures = np.asarray(pictures)
    pictures = pictures if pictures.dtype == np.uint8 else to_uint8(pictures)
    labels = [str(label) for label in labels] or [""] * len(pictures)
    return Image.fromarray(contact_sheet(pictures, labels, min(columns, len(pictures))))
