"""A small random model and picture files for the page."""

import numpy as np
import pytest
from PIL import Image
from small_model import save_small_model

from dalle2_jax.data.examples import write_examples


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("model")
    save_small_model(where)
    write_examples(where, ["a red ring", "a blue square"])
    return where


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Three pictures and two files that are none."""
    where = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for name in ("one.png", "other.png"):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(where / name)
    slope = np.linspace(0, 200, 24).astype(np.uint8)
    Image.fromarray(np.tile(slope, (20, 1))).save(where / "smooth.png")
    Image.new("1", (20_000, 20_000)).save(where / "bomb.png")
    (where / "words.png").write_text("no picture")
    return where
