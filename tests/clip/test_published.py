"""The published CLIPs have their parameters, counted without allocating any."""

import jax
import numpy as np
import pytest

from dalle2_jax.cli.overrides import load_run
from dalle2_jax.clip.contrastive import Clip, example
from dalle2_jax.layers.init import param_shapes

SIZES = {  # as the originals count: BatchNorm's statistics are buffers there
    "vit_b_32": 151_277_313,
    "vit_b_16": 149_620_737,
    "vit_l_14": 427_616_513,
    "vit_l_14_336": 427_944_193,
    "vit_h_14": 986_109_441,
    "rn50": 102_007_137,
    "rn101": 119_688_033,
    "rn50x4": 178_300_601,
    "rn50x16": 290_979_217,
    "rn50x64": 623_258_305,
}


def count(tree):
    return sum(
        int(np.prod(leaf.shape))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if path[-1].key not in ("mean", "variance")
    )


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes(name):
    cfg = load_run(f"configs/clip.py:{name}").model
    assert count(param_shapes(Clip(cfg), *example(cfg))) == SIZES[name]


def test_the_papers_own_has_the_size_of_a_vit_h():
    """Image 32 x 12 x 1280^2 and text 24 x 12 x 1024^2, and what stands around them."""
    cfg = load_run("configs/clip.py").model
    found = count(param_shapes(Clip(cfg), *example(cfg)))
    assert found == pytest.approx(32 * 12 * 1280**2 + 24 * 12 * 1024**2, rel=0.06)
