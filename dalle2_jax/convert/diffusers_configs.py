"""Our configurations as the JSON that diffusers and transformers read.

Import is in karlo.py and openai_clip.py; here is the way back, and what has none.
"""

from dalle2_jax.convert.parts import check_plain
from dalle2_jax.errors import BadInput

FIXED_PRIOR = {
    "mlp_ratio": 4.0,
    "activation": "gelu",
    "null": "empty",
    "whiten": True,
    "causal": True,
}
FIXED_UNET = {"heads": 0, "classes": 0, "updown": "resblock", "patch": 1}
FIXED_DECODER = {
    "caption": None,
    "pooled_text": True,
    "spatial_map": 0,
    "null": "learned",
}
FIXED_UPSAMPLER = {"resize": "bicubic", "residual": False}
PREDICTION = {"x0": "sample", "eps": "epsilon"}
CROSS, PLAIN = "SimpleCrossAttn", "Resnet"
ARGMAX_END = 2  # transformers' sign for: pool at the largest id


def prior_json(cfg):
    """PriorConfig -> the configuration of a PriorTransformer."""
    check_plain(cfg, FIXED_PRIOR, "A PriorTransformer")
    check_plain(cfg, {"text_width": cfg.clip}, "A PriorTransformer")
    return {
        "_class_name": "PriorTransformer",
        "num_attention_heads": cfg.heads,
        "attention_head_dim": cfg.width // cfg.heads,
        "num_layers": cfg.depth,
        "embedding_dim": cfg.clip,
        "num_embeddings": cfg.context,
        "additional_embeddings": 4,
        "dropout": 0.0,
        "time_embed_act_fn": cfg.time_activation,
        "norm_in_type": "layer" if cfg.norm_in else None,
        "embedding_proj_norm_type": "layer" if cfg.norm_pooled else None,
        "encoder_hid_proj_type": "linear",
        "added_emb_type": "prd",
        "time_embed_dim": cfg.time_hidden or None,
        "embedding_proj_dim": cfg.pooled_width or None,
        "clip_embed_dim": None,
    }


def decoder_json(cfg):
    """DecoderConfig -> the configurations of UNet2DConditionModel and text_proj."""
    check_plain(cfg, FIXED_DECODER, "The diffusers decoder")
    check_plain(cfg, {"text_width": cfg.clip}, "The diffusers decoder")
    unet = cfg.unet
    if not (cfg.tokens and unet.attend):
        raise BadInput(
            "The diffusers decoder needs tokens made from z_i and attention."
        )
    unet_json = {
        "_class_name": "UNet2DConditionModel",
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "cross_attention_dim": unet.context_width,
        "class_embed_type": "identity",
        **_unet_json(unet, cfg.size, unet.in_channels),
    }
    text_proj = {
        "_class_name": "UnCLIPTextProjModel",
        "clip_extra_context_tokens": cfg.tokens,
        "clip_embeddings_dim": cfg.clip,
        "time_embed_dim": unet.time_width,
        "cross_attention_dim": unet.context_width,
    }
    return unet_json, text_proj


def upsampler_json(cfg):
    """UpsamplerConfig -> the configuration of a UNet2DModel."""
    check_plain(cfg, FIXED_UPSAMPLER, "A diffusers super-resolution U-Net")
    check_plain(cfg.unet, {"attend": ()}, "A diffusers super-resolution U-Net")
    shared = _unet_json(cfg.unet, cfg.size, 2 * cfg.unet.in_channels)
    return {"_class_name": "UNet2DModel", "add_attention": False, **shared}


def scheduler_json(noise, sampling):
    """Noise and a dict of unclip.Sampling -> an UnCLIPScheduler."""
    target = "An UnCLIPScheduler"
    check_plain(noise, {"schedule": "cosine"}, target)
    if noise.predicts not in PREDICTION:
        raise BadInput(f"{target} cannot express Noise.predicts = {noise.predicts!r}.")
    clip = sampling.get("clip", 0.0)
    return {
        "_class_name": "UnCLIPScheduler",
        "num_train_timesteps": noise.steps,
        "variance_type": "learned_range"
        if noise.learned_variance
        else "fixed_small_log",
        "clip_sample": bool(clip),
        "clip_sample_range": clip or 1.0,
        "prediction_type": PREDICTION[noise.predicts],
        "beta_schedule": "squaredcos_cap_v2",
    }


def hf_text_json(cfg, clip, tokenizer=None):
    """TextTowerConfig -> a CLIPTextConfig; clip: width of the joint space."""
    marks = {"bos_token_id": 0, "pad_token_id": 0}
    if tokenizer is not None:
        marks["bos_token_id"] = tokenizer.start
    return {
        "model_type": "clip_text_model",
        "architectures": ["CLIPTextModelWithProjection"],
        "vocab_size": cfg.vocab,
        "max_position_embeddings": cfg.context,
        "eos_token_id": ARGMAX_END if cfg.pool == "argmax" else cfg.end_id,
        **marks,
        **_tower_json(cfg, clip),
    }


def hf_image_json(cfg, clip):
    """ImageTowerConfig -> a CLIPVisionConfig."""
    check_plain(cfg, {"stem": "patch", "head": "class"}, "A Hugging Face CLIP")
    return {
        "model_type": "clip_vision_model",
        "architectures": ["CLIPVisionModelWithProjection"],
        "image_size": cfg.size,
        "patch_size": cfg.patch,
        **_tower_json(cfg, clip),
    }


def preprocessor_json(cfg):
    """ImageTowerConfig -> a CLIPImageProcessor."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": cfg.size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": cfg.size, "width": cfg.size},
        "do_convert_rgb": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(cfg.mean),
        "image_std": list(cfg.std),
    }


def _tower_json(cfg, clip):
    return {
        "hidden_size": cfg.width,
        "intermediate_size": round(cfg.width * cfg.mlp_ratio),
        "num_hidden_layers": cfg.depth,
        "num_attention_heads": cfg.heads,
        "hidden_act": cfg.activation,
        "layer_norm_eps": 1e-5,
        "projection_dim": clip,
    }


def _unet_json(cfg, size, in_channels):
    """What the two U-Net classes share."""
    check_plain(cfg, FIXED_UNET, "A diffusers U-Net")
    levels = range(len(cfg.multiples))
    kinds = [CROSS if 2**level in cfg.attend else PLAIN for level in levels]
    down = {CROSS: "SimpleCrossAttnDownBlock2D", PLAIN: "ResnetDownsampleBlock2D"}
    up = {CROSS: "SimpleCrossAttnUpBlock2D", PLAIN: "ResnetUpsampleBlock2D"}
    return {
        "sample_size": size,
        "in_channels": in_channels,
        "out_channels": cfg.out_channels,
        "layers_per_block": cfg.depth,
        "block_out_channels": [cfg.width(level) for level in levels],
        "down_block_types": [down[kind] for kind in kinds],
        "up_block_types": [up[kind] for kind in reversed(kinds)],
        "attention_head_dim": cfg.head_width,
        "norm_num_groups": cfg.groups,
        "resnet_time_scale_shift": "scale_shift" if cfg.scale_shift else "default",
        "act_fn": "silu",
        "norm_eps": 1e-5,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "dropout": cfg.dropout,
    }
