"""Types of flags that many verbs have."""

import argparse
from pathlib import Path

from dalle2_jax.config import SEEDS
from dalle2_jax.errors import BadInput
from dalle2_jax.files import local_path


def local(text: str) -> Path:
    """A file or folder of this machine, ~ resolved; URLs are refused in a sentence."""
    try:
        return local_path(text)
    except BadInput as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def seed(text: str) -> int:
    """A whole number from 0 to 2^64 - 1."""
    if not text.isascii() or not text.isdecimal() or int(text) >= SEEDS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no seed; take a whole number from 0 to {SEEDS - 1}"
        )
    return int(text)
