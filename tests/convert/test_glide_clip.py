"""GLIDE's noised CLIP: weights in and out, and the released sizes."""

from pathlib import Path

import jax
import numpy as np

from dalle2_jax.clip.noised import NoisedClip, example
from dalle2_jax.convert.glide_clip import (
    GLIDE_CLIP,
    glide_clip_config,
    glide_clip_table,
)
from dalle2_jax.convert.parity import read_case
from dalle2_jax.convert.rename import export_params, import_params
from dalle2_jax.layers.init import param_shapes

CASE = Path(__file__).parent.parent / "parity" / "data" / "glide_clip.safetensors"


def test_import_then_export_gives_both_encoders_back():
    case = read_case(CASE)
    cfg = glide_clip_config(case.config)
    table, shapes = glide_clip_table(cfg), param_shapes(NoisedClip(cfg), *example(cfg))
    params = import_params(case.params, table, shapes)
    assert not params["text"]["layers"]["attention"]["k"]["bias"].any()
    back = export_params(params, table)
    assert back.keys() == case.params.keys()
    for key, value in back.items():
        np.testing.assert_array_equal(value, case.params[key], err_msg=key)


def test_the_released_encoders_have_their_sizes():
    cfg = glide_clip_config(GLIDE_CLIP)
    shapes = param_shapes(NoisedClip(cfg), *example(cfg))
    keys = cfg.image.depth * cfg.image.width, cfg.text.depth * cfg.text.width
    assert count(shapes["image"]) + count(shapes["times"]) - keys[0] == 86_443_776
    assert count(shapes["text"]) - keys[1] == 71_679_488
    assert len(glide_keys(cfg, "image")) == 188 and len(glide_keys(cfg, "text")) == 185


def count(shapes):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))


def glide_keys(cfg, encoder):
    """The keys of one encoder's file."""
    rows = glide_clip_table(cfg, "image/", "text/")
    own = [row for row in rows if row.theirs.startswith(encoder)]
    return {row.theirs.format(i=i) for row in own for i in range(row.layers or 1)}
