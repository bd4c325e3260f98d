"""OpenAI's ResNets: weights in and out, and sizes from shapes alone."""

from pathlib import Path

import numpy as np
import pytest

from dalle2_jax.clip.contrastive import Clip, example
from dalle2_jax.convert.openai_clip import (
    openai_arguments,
    openai_config,
    openai_table,
    openclip_config,
)
from dalle2_jax.convert.parity import read_case
from dalle2_jax.convert.rename import export_params, import_params
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.init import param_shapes

DATA = Path(__file__).parent.parent / "parity" / "data"


def test_import_then_export_gives_the_resnet_back():
    case = read_case(DATA / "clip_openai_resnet.safetensors")
    cfg = openai_config(case.config)
    table, shapes = openai_table(cfg), param_shapes(Clip(cfg), *example(cfg))
    back = export_params(import_params(case.params, table, shapes), table)
    assert back.keys() == case.params.keys()
    for key, value in back.items():
        assert value.dtype == case.params[key].dtype, key
        np.testing.assert_array_equal(value, case.params[key], err_msg=key)


@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_shapes_tell_the_constructor_arguments(tower):
    case = read_case(DATA / f"clip_openai_{tower}.safetensors")
    found = openai_arguments(case.params)
    small = {"transformer_heads"}  # the small cases have heads narrower than 64
    known = {k: v for k, v in case.config.items() if k not in small}
    assert {k: found[k] for k in known} == known


def test_what_is_no_openai_clip_is_refused():
    with pytest.raises(BadInput, match="visual.conv1.weight is missing"):
        openai_arguments({"logit_scale": np.zeros(())})


def test_openclip_spells_a_resnet_as_a_list_of_layers():
    vision = {"image_size": 288, "layers": [4, 6, 10, 6], "width": 80}
    text = {"context_length": 77, "vocab_size": 49408, "width": 640, "layers": 12}
    config = {"embed_dim": 640, "vision_cfg": vision, "text_cfg": {**text, "heads": 10}}
    image = openclip_config(config).image
    assert (image.heads, image.depth, image.patch, image.width) == (40, 26, 32, 80)
