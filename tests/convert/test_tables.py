"""Every table: published sizes, and recorded weights through it and back."""

from pathlib import Path

import jax
import numpy as np
import pytest

from dalle2_jax.clip import contrastive
from dalle2_jax.clip.image import ImageTower
from dalle2_jax.clip.text import TextTower
from dalle2_jax.convert import adm, karlo, openai_clip
from dalle2_jax.convert.parity import read_case
from dalle2_jax.convert.rename import export_params, import_params
from dalle2_jax.decoder import decoder, upsampler
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.init import param_shapes
from dalle2_jax.layers.unet import UNet
from dalle2_jax.prior import diffusion

DATA = Path(__file__).parent.parent / "parity" / "data"


def clip(cfg, table):
    return table, param_shapes(contrastive.Clip(cfg), *contrastive.example(cfg))


def openai(case):
    cfg = openai_clip.openai_config(case.config)
    return clip(cfg, openai_clip.openai_table(cfg))


def openclip(case, prefix=""):
    cfg = openai_clip.openclip_config(case.config)
    return clip(cfg, openai_clip.openai_table(cfg, prefix))


def hf(case):
    cfg = openai_clip.hf_config(case.config)
    return clip(cfg, openai_clip.hf_table(cfg))


def hf_text(case):
    cfg = openai_clip.hf_text_config(case.config["text_config"])
    tower = TextTower(cfg, case.config["text_config"]["projection_dim"])
    shapes = param_shapes(tower, case.inputs["input_ids"])
    return openai_clip.hf_text_table(cfg), shapes


def hf_vision(case):
    cfg = openai_clip.hf_image_config(case.config["vision_config"])
    tower = ImageTower(cfg, case.config["vision_config"]["projection_dim"])
    pixels = np.zeros((1, cfg.size, cfg.size, 3), np.float32)
    return openai_clip.hf_image_table(cfg), param_shapes(tower, pixels)


def prior(case):
    cfg = karlo.prior_config(case.config)
    shapes = param_shapes(diffusion.Prior(cfg), *diffusion.example(cfg))
    return karlo.prior_table(cfg), shapes


def karlo_decoder(case):
    cfg = karlo.decoder_config(case.config["decoder"], case.config["text_proj"])
    shapes = param_shapes(decoder.Decoder(cfg), *decoder.example(cfg))
    return karlo.decoder_table(cfg, shapes), shapes


def unet(case):
    cfg = adm.adm_config(case.config)
    x = np.zeros((1, 16, 16, cfg.in_channels), np.float32)
    t = label = np.zeros(1, np.int32)
    shapes = param_shapes(UNet(cfg), x, t, None, None, None, label)
    return adm.guided_table(cfg, shapes, case.config["use_new_attention_order"]), shapes


TABLES = {
    "clip_openai_vit": openai,
    "clip_openclip": openclip,
    "clip_openclip_custom": lambda case: openclip(case, "text."),
    "clip_hf_model": hf,
    "clip_hf_text": hf_text,
    "clip_hf_vision": hf_vision,
    "prior_diffusers": prior,
    "prior_diffusers_norms": prior,
    "decoder_diffusers": karlo_decoder,
    "unet_guided_diffusion_new": unet,
    "unet_guided_diffusion_legacy": unet,
}


@pytest.mark.parametrize("family", TABLES)
def test_import_then_export_gives_the_file_back(family):
    case = read_case(DATA / f"{family}.safetensors")
    table, shapes = TABLES[family](case)
    back = export_params(import_params(case.params, table, shapes), table)
    assert back.keys() == case.params.keys()
    for key, value in back.items():
        np.testing.assert_array_equal(value, case.params[key], err_msg=key)


@pytest.mark.parametrize("module", ["super_res_first", "super_res_last"])
def test_upsamplers_come_back_too(module):
    case = read_case(DATA / "upsampler_diffusers.safetensors")
    cfg = karlo.upsampler_config(case.config["super_res"])
    shapes = param_shapes(upsampler.Upsampler(cfg), *upsampler.example(cfg))
    table = karlo.upsampler_table(cfg, shapes)
    state = {
        key.removeprefix(f"{module}/"): value
        for key, value in case.params.items()
        if key.startswith(module)
    }
    back = export_params(import_params(state, table, shapes), table)
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[key], state[key]) for key in state)


def test_encoder_kv_rows_are_head_by_head():
    """GLIDE's text keys and values: rows group as (head, {k, v}, e)."""
    cfg = adm.UNetConfig(8, (1,), 1, (1,), heads=2, context_width=3, groups=4)
    x, t = np.zeros((1, 8, 8, 3), np.float32), np.zeros(1, np.int32)
    context = np.zeros((1, 2, 3), np.float32)
    shapes = param_shapes(UNet(cfg), x, t, None, context)
    rows = adm.guided_table(cfg, shapes)
    row = next(r for r in rows if r.theirs == "input_blocks.1.1.encoder_kv.bias")
    assert row.ours == (
        "down_0/attention_0/context_k/bias",
        "down_0/attention_0/context_v/bias",
    )
    k, v = row.layout.ours(np.arange(16))
    np.testing.assert_array_equal(k, [0, 1, 2, 3, 8, 9, 10, 11])
    np.testing.assert_array_equal(v, [4, 5, 6, 7, 12, 13, 14, 15])


def count(shapes):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))


WIDE = {"layers_per_block": 3, "block_out_channels": [320, 640, 960, 1280]}
PLAIN = "ResnetDownsampleBlock2D"


def test_karlos_prior_has_its_published_size():
    cfg = karlo.prior_config(
        {
            "num_attention_heads": 32,
            "attention_head_dim": 64,
            "num_layers": 20,
            "embedding_dim": 768,
            "num_embeddings": 77,
        }
    )
    shapes = param_shapes(diffusion.Prior(cfg), *diffusion.example(cfg))
    moments = 2 * 768  # the original keeps mean and deviation in a file of their own
    assert count(shapes) - moments == 1_022_028_544


def test_karlos_decoder_has_its_published_size():
    config = {
        **WIDE,
        "sample_size": 64,
        "down_block_types": [PLAIN, *3 * ["SimpleCrossAttnDownBlock2D"]],
        "in_channels": 3,
        "out_channels": 6,
        "cross_attention_dim": 1536,
        "attention_head_dim": 64,
        "resnet_time_scale_shift": "scale_shift",
    }
    text = {"clip_extra_context_tokens": 4, "clip_embeddings_dim": 768}
    cfg = karlo.decoder_config(config, text)
    shapes = param_shapes(decoder.Decoder(cfg), *decoder.example(cfg))
    assert count(shapes) == 893_318_086


def test_karlos_upsampler_has_its_published_size():
    config = {
        **WIDE,
        "sample_size": 256,
        "down_block_types": 4 * [PLAIN],
        "in_channels": 6,
        "out_channels": 3,
    }
    cfg = karlo.upsampler_config(config)
    shapes = param_shapes(upsampler.Upsampler(cfg), *upsampler.example(cfg))
    assert count(shapes) == 691_579_523


def test_adm_64_has_its_published_size():
    cfg = adm.adm_config(
        {
            "model_channels": 192,
            "channel_mult": [1, 2, 3, 4],
            "num_res_blocks": 3,
            "attention_resolutions": [2, 4, 8],
            "num_head_channels": 64,
            "in_channels": 3,
            "out_channels": 6,
            "num_classes": 1000,
            "use_scale_shift_norm": True,
            "resblock_updown": True,
        }
    )
    x, t = np.zeros((1, 64, 64, 3), np.float32), np.zeros(1, np.int32)
    shapes = param_shapes(UNet(cfg), x, t, None, None, None, t)
    assert count(shapes) == 295_904_454


def test_vit_l_14_has_its_published_size():
    cfg = openai_clip.openai_config(
        {
            "embed_dim": 768,
            "image_resolution": 224,
            "vision_layers": 24,
            "vision_width": 1024,
            "vision_patch_size": 14,
            "context_length": 77,
            "vocab_size": 49408,
            "transformer_width": 768,
            "transformer_heads": 12,
            "transformer_layers": 12,
        }
    )
    assert count(clip(cfg, [])[1]) == 427_616_513


def test_another_epsilon_is_refused():
    case = read_case(DATA / "clip_hf_vision.safetensors")
    config = {**case.config["vision_config"], "layer_norm_eps": 1e-6}
    with pytest.raises(BadInput, match="layer_norm_eps"):
        openai_clip.hf_image_config(config)
