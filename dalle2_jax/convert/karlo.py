"""Tables of Karlo (unCLIP by Kakao Brain), its parts named as in diffusers."""

import functools

from dalle2_jax.convert.adm import MIDDLE_ONLY, diffusers_table
from dalle2_jax.convert.fields import (
    COUNT,
    LAYERS,
    SIZE,
    TEXT,
    check_fields,
    list_of,
    optional,
)
from dalle2_jax.convert.rename import (
    LINEAR,
    SAME,
    Row,
    channel_major,
    norm,
    ones_in_front,
    weights,
)
from dalle2_jax.decoder.decoder import DecoderConfig
from dalle2_jax.decoder.upsampler import UpsamplerConfig
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.unet import UNetConfig
from dalle2_jax.prior.diffusion import PriorConfig

PRIOR_CONFIG_FIELDS = {
    "embedding_dim": SIZE,
    "num_attention_heads": SIZE,
    "attention_head_dim": SIZE,
    "num_layers": LAYERS,
    "num_embeddings": SIZE,
    "embedding_proj_dim": optional(COUNT),
    "time_embed_dim": optional(COUNT),
    "time_embed_act_fn": optional(TEXT),
    "norm_in_type": optional(TEXT),
    "embedding_proj_norm_type": optional(TEXT),
}
UNET_FIELDS = {
    "sample_size": SIZE,
    "in_channels": SIZE,
    "out_channels": SIZE,
    "layers_per_block": LAYERS,
    "block_out_channels": list_of(SIZE, 1, 16),
    "down_block_types": list_of(TEXT, 1, 16),
    "mid_block_type": optional(TEXT),
    "attention_head_dim": optional(COUNT),
    "cross_attention_dim": optional(COUNT),
    "resnet_time_scale_shift": optional(TEXT),
    "norm_num_groups": optional(SIZE),
}
TEXT_PROJ_FIELDS = {"clip_embeddings_dim": SIZE, "clip_extra_context_tokens": SIZE}
PRIOR_LEAVES = [  # diffusers, ours
    ("time_embedding.linear_1", "time/in"),
    ("time_embedding.linear_2", "time/out"),
    ("proj_in", "z_noised"),
    ("embedding_proj", "pooled"),
    ("encoder_hidden_states_proj", "states"),
    ("proj_to_clip_embeddings", "z_image"),
]
BLOCK_LEAVES = [
    ("attn1.to_q", "attention/q"),
    ("attn1.to_k", "attention/k"),
    ("attn1.to_v", "attention/v"),
    ("attn1.to_out.0", "attention/out"),
    ("ff.net.0.proj", "mlp/up"),
    ("ff.net.2", "mlp/down"),
]
PRIOR_FIXED = {  # fields whose other values would be another network
    "encoder_hid_proj_type": "linear",
    "added_emb_type": "prd",
    "additional_embeddings": 4,
    "clip_embed_dim": None,
}
TEXT_LEAVES = [
    ("encoder_hidden_states_proj", "text_states"),
    ("embedding_proj", "text_time"),
    ("clip_image_embeddings_project_to_time_embeddings", "image_time"),
]


def prior_config(config, where="PriorTransformer"):
    """PriorConfig from the fields of a diffusers PriorTransformer.

    Raises:
        BadInput: a field that is no such size, or of another network; names it.
    """
    check_fields(config, PRIOR_CONFIG_FIELDS, where)
    for field, value in PRIOR_FIXED.items():
        if config.get(field, value) != value:
            raise BadInput(f"PriorTransformer.{field} is supported as {value!r} only.")
    return PriorConfig(
        clip=config["embedding_dim"],
        width=config["num_attention_heads"] * config["attention_head_dim"],
        depth=config["num_layers"],
        heads=config["num_attention_heads"],
        context=config["num_embeddings"],
        text_width=config["embedding_dim"],
        null="empty",
        whiten=True,
        pooled_width=config.get("embedding_proj_dim") or 0,
        time_hidden=config.get("time_embed_dim") or 0,
        time_activation=config.get("time_embed_act_fn") or "silu",
        norm_in=config.get("norm_in_type") == "layer",
        norm_pooled=config.get("embedding_proj_norm_type") == "layer",
    )


def prior_table(cfg):
    """Rows for a PriorTransformer."""
    block = "transformer_blocks.{i}"
    rows = [
        Row("positional_embedding", ("positions",), ones_in_front(1)),
        Row("prd_embedding", ("query",), ones_in_front(2)),
        Row("clip_mean", ("clip_mean",), ones_in_front(1)),
        Row("clip_std", ("clip_std",), ones_in_front(1)),
        *norm("norm_out", "norm_out"),
        *norm(f"{block}.norm1", "layers/norm_1", cfg.depth),
        *norm(f"{block}.norm3", "layers/norm_2", cfg.depth),
    ]
    rows += norm("norm_in", "norm_in") if cfg.norm_in else []
    rows += norm("embedding_proj_norm", "norm_pooled") if cfg.norm_pooled else []
    for theirs, ours in PRIOR_LEAVES:
        rows += weights(theirs, ours, LINEAR)
    for theirs, ours in BLOCK_LEAVES:
        rows += weights(f"{block}.{theirs}", f"layers/{ours}", LINEAR, cfg.depth)
    return rows


def unet_config(config, in_channels):
    """UNetConfig from the fields of a diffusers unCLIP U-Net; in_channels: of x_t."""
    kinds, widths = config["down_block_types"], config["block_out_channels"]
    attend = tuple(2**i for i, kind in enumerate(kinds) if "CrossAttn" in kind)
    if not attend and "CrossAttn" in (config.get("mid_block_type") or ""):
        attend = MIDDLE_ONLY
    return UNetConfig(
        channels=widths[0],
        multiples=tuple(width / widths[0] for width in widths),
        depth=config["layers_per_block"],
        attend=attend,
        head_width=config.get("attention_head_dim") or 8,
        in_channels=in_channels,
        out_channels=config["out_channels"],
        context_width=config.get("cross_attention_dim") or 0 if attend else 0,
        scale_shift=config.get("resnet_time_scale_shift") == "scale_shift",
        groups=config.get("norm_num_groups") or 32,
    )


def decoder_config(decoder, text_proj):
    """DecoderConfig from the fields of the decoder and of UnCLIPTextProjModel."""
    clip = text_proj["clip_embeddings_dim"]
    return DecoderConfig(
        size=decoder["sample_size"],
        unet=unet_config(decoder, decoder["in_channels"]),
        clip=clip,
        tokens=text_proj["clip_extra_context_tokens"],
        text_width=clip,
        pooled_text=True,
    )


def decoder_table(cfg, shapes):
    """Rows for the U-Net ("decoder/...") and the text projections ("text_proj/...")."""
    unet = diffusers_table(cfg.unet, shapes, "unet/")
    rows = [row._replace(theirs=f"decoder/{row.theirs}") for row in unet]
    rows += norm("text_proj/text_encoder_hidden_states_norm", "text_norm")
    for theirs, ours in TEXT_LEAVES:
        rows += weights(f"text_proj/{theirs}", ours, LINEAR)
    null = "text_proj/learned_classifier_free_guidance_embeddings"
    tokens = "text_proj/clip_extra_context_tokens_proj"
    token_major = functools.partial(channel_major, cfg.tokens)
    return [
        *rows,
        Row(null, ("null_image",), SAME),
        Row(f"{tokens}.weight", ("image_tokens/kernel",), token_major(LINEAR)),
        Row(f"{tokens}.bias", ("image_tokens/bias",), token_major(SAME)),
    ]


def upsampler_config(config, factor=4):
    """UpsamplerConfig from the fields of one super-resolution U-Net."""
    unet = unet_config(config, config["in_channels"] // 2)
    return UpsamplerConfig(config["sample_size"], unet, factor, resize="bicubic")


def upsampler_table(cfg, shapes):
    """Rows for one super-resolution U-Net."""
    return diffusers_table(cfg.unet, shapes, "unet/")
