"""Tables of GLIDE: the ADM U-Net in guided-diffusion's spelling, with its own text."""

from dalle2_jax.convert.adm import (
    COSINE_NOISE,
    GRIDS,
    LINEAR_NOISE,
    MULTIPLES,
    Published,
    adm_config,
    guided_table,
)
from dalle2_jax.convert.fields import FLAG, LAYERS, SIZE, check_fields, optional
from dalle2_jax.convert.rename import LINEAR, SAME, Row, fused, norm, weights
from dalle2_jax.decoder.caption import CaptionConfig
from dalle2_jax.decoder.decoder import DecoderConfig
from dalle2_jax.errors import BadInput

TEXT_FIELDS = {
    "image_size": SIZE,
    "n_vocab": SIZE,
    "text_ctx": SIZE,
    "xf_width": SIZE,
    "xf_layers": LAYERS,
    "xf_heads": SIZE,
    "round_low_res": optional(FLAG),
    "inpaint": optional(FLAG),
}
FIXED = {"xf_padding": True, "xf_final_ln": True, "xf_ar": 0.0}


def _arguments(size, depth, low_res=0, inpaint=False):
    """Constructor arguments of the released models."""
    return {
        "image_size": size,
        "text_ctx": 128,
        "xf_width": 512,
        "xf_layers": 16,
        "xf_heads": 8,
        "n_vocab": 50257,
        "in_channels": 3,
        "model_channels": 192,
        "out_channels": 6,
        "num_res_blocks": depth,
        "attention_resolutions": [size // side for side in GRIDS],
        "dropout": 0.1,
        "channel_mult": MULTIPLES[size],
        "num_head_channels": 64,
        "use_scale_shift_norm": True,
        "resblock_updown": True,
        "low_res": low_res,
        "round_low_res": low_res > 0,
        "inpaint": inpaint,
    }


GLIDE_FILES = {
    name: Published(stage, _arguments(*sizes), noise)
    for name, stage, sizes, noise in (
        ("base.pt", "glide", (64, 3), COSINE_NOISE),
        ("base_inpaint.pt", "glide", (64, 3, 0, True), COSINE_NOISE),
        ("upsample.pt", "glide_upsampler", (256, 2, 64), LINEAR_NOISE),
        ("upsample_inpaint.pt", "glide_upsampler", (256, 2, 64, True), LINEAR_NOISE),
    )
}


def glide_config(config):
    """DecoderConfig from the constructor arguments of Text2ImUNet and its kin.

    image_size, low_res, round_low_res and inpaint say which of the kin it is; the
    original rounds the smaller picture to 8 bits outside of the class.

    Raises:
        BadInput: an option with which no model was released, or one that is no such
            size; names it.
    """
    check_fields(config, TEXT_FIELDS, "Text2ImUNet")
    for field, value in FIXED.items():
        if config.get(field, value) != value:
            raise BadInput(f"Text2ImUNet.{field} is supported as {value!r} only.")
    caption = CaptionConfig(
        vocab=config["n_vocab"],
        context=config["text_ctx"],
        width=config["xf_width"],
        depth=config["xf_layers"],
        heads=config["xf_heads"],
    )
    return DecoderConfig(
        size=config["image_size"],
        unet=adm_config({**config, "encoder_channels": config["xf_width"]}),
        clip=0,
        caption=caption,
        pooled_text=True,
        low_res=config.get("low_res") or 0,
        round_low_res=bool(config.get("round_low_res")),
        inpaint=bool(config.get("inpaint")),
    )


def glide_table(cfg, shapes):
    """Rows for a GLIDE model: the U-Net, its text transformer and the way to time."""
    block, ours = "transformer.resblocks.{i}", "caption/layers"
    heads, depth = cfg.caption.heads, cfg.caption.depth
    kernels, biases = (
        tuple(f"{ours}/attention/{part}/{leaf}" for part in "qkv")
        for leaf in ("kernel", "bias")
    )
    return [
        *guided_table(cfg.unet, shapes, ours="unet/"),
        Row("token_embedding.weight", ("caption/tokens/embedding",), SAME),
        Row("positional_embedding", ("caption/positions",), SAME),
        Row("padding_embedding", ("caption/padding",), SAME),
        *norm(f"{block}.ln_1", f"{ours}/norm_1", depth),
        Row(f"{block}.attn.c_qkv.weight", kernels, fused(3, heads, LINEAR), depth),
        Row(f"{block}.attn.c_qkv.bias", biases, fused(3, heads, SAME), depth),
        *weights(f"{block}.attn.c_proj", f"{ours}/attention/out", LINEAR, depth),
        *norm(f"{block}.ln_2", f"{ours}/norm_2", depth),
        *weights(f"{block}.mlp.c_fc", f"{ours}/mlp/up", LINEAR, depth),
        *weights(f"{block}.mlp.c_proj", f"{ours}/mlp/down", LINEAR, depth),
        *norm("final_ln", "caption/norm_out"),
        *weights("transformer_proj", "text_time", LINEAR),
    ]
