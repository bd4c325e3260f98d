"""Tables of CLIP: the spellings of OpenAI, OpenCLIP and Hugging Face transformers."""

from dalle2_jax.clip.contrastive import ClipConfig
from dalle2_jax.clip.image import ImageTowerConfig
from dalle2_jax.clip.text import TextTowerConfig
from dalle2_jax.convert.rename import CONV, LINEAR, SAME, Row, fused, norm, weights
from dalle2_jax.errors import BadInput

# Scalars that OpenAI's archives carry, and index buffers of older transformers files.
IGNORED = (
    "input_resolution",
    "context_length",
    "vocab_size",
    "text_model.embeddings.position_ids",
    "vision_model.embeddings.position_ids",
)


def openai_config(config):
    """ClipConfig of OpenAI's class from its constructor arguments; ViT only."""
    width = config["vision_width"]
    image = ImageTowerConfig(
        size=config["image_resolution"],
        patch=config["vision_patch_size"],
        width=width,
        depth=config["vision_layers"],
        heads=width // 64,
    )
    text = TextTowerConfig(
        vocab=config["vocab_size"],
        context=config["context_length"],
        width=config["transformer_width"],
        depth=config["transformer_layers"],
        heads=config["transformer_heads"],
    )
    return ClipConfig(config["embed_dim"], image, text)


def openclip_config(config):
    """ClipConfig from an OpenCLIP config; exact GELU unless quick_gelu is set."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    activation = "quick_gelu" if config.get("quick_gelu") else "gelu"
    image = ImageTowerConfig(
        size=vision["image_size"],
        patch=vision["patch_size"],
        width=vision["width"],
        depth=vision["layers"],
        heads=vision["width"] // vision.get("head_width", 64),
        mlp_ratio=float(vision.get("mlp_ratio", 4.0)),
        activation=activation,
    )
    text = TextTowerConfig(
        vocab=text["vocab_size"],
        context=text["context_length"],
        width=text["width"],
        depth=text["layers"],
        heads=text["heads"],
        mlp_ratio=float(text.get("mlp_ratio", 4.0)),
        activation=activation,
    )
    return ClipConfig(config["embed_dim"], image, text)


def hf_image_config(vision):
    """ImageTowerConfig from the fields of a CLIPVisionConfig."""
    _check_epsilon(vision)
    return ImageTowerConfig(
        size=vision["image_size"],
        patch=vision["patch_size"],
        width=vision["hidden_size"],
        depth=vision["num_hidden_layers"],
        heads=vision["num_attention_heads"],
        mlp_ratio=vision["intermediate_size"] / vision["hidden_size"],
        activation=vision["hidden_act"],
    )


def hf_text_config(text):
    """TextTowerConfig from the fields of a CLIPTextConfig.

    eos_token_id 2 is a historical mistake there; it stands for the largest id.
    """
    _check_epsilon(text)
    end = text["eos_token_id"]
    return TextTowerConfig(
        vocab=text["vocab_size"],
        context=text["max_position_embeddings"],
        width=text["hidden_size"],
        depth=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        mlp_ratio=text["intermediate_size"] / text["hidden_size"],
        activation=text["hidden_act"],
        pool="argmax" if end == 2 else "end",
        end_id=-1 if end == 2 else end,
    )


def hf_config(config):
    """ClipConfig from the fields of a CLIPConfig."""
    image = hf_image_config(config["vision_config"])
    text = hf_text_config(config["text_config"])
    return ClipConfig(config["projection_dim"], image, text)


def openai_table(cfg, text_prefix=""):
    """Rows for an OpenAI or OpenCLIP model; text_prefix "text." for CustomTextCLIP."""
    image = [
        Row("visual.conv1.weight", ("image/stem/kernel",), CONV),
        Row("visual.class_embedding", ("image/class_token",), SAME),
        Row("visual.positional_embedding", ("image/positions",), SAME),
        *norm("visual.ln_pre", "image/norm_in"),
        *_openai_stack("visual.transformer", "image/layers", cfg.image.depth),
        *norm("visual.ln_post", "image/norm_out"),
        Row("visual.proj", ("image/projection/kernel",), SAME),
    ]
    text = [
        Row("token_embedding.weight", ("text/tokens/embedding",), SAME),
        Row("positional_embedding", ("text/positions",), SAME),
        *_openai_stack("transformer", "text/layers", cfg.text.depth),
        *norm("ln_final", "text/norm_out"),
        Row("text_projection", ("text/projection/kernel",), SAME),
    ]
    text = [row._replace(theirs=text_prefix + row.theirs) for row in text]
    return [*image, *text, Row("logit_scale", ("log_scale",), SAME)]


def hf_table(cfg):
    """Rows for a CLIPModel."""
    image = hf_image_table(cfg.image, "image/")
    text = hf_text_table(cfg.text, "text/")
    return [*image, *text, Row("logit_scale", ("log_scale",), SAME)]


def hf_image_table(cfg, ours=""):
    """Rows for a CLIPVisionModelWithProjection; `ours` stands before our paths."""
    theirs = "vision_model"
    return [
        Row(f"{theirs}.embeddings.class_embedding", (f"{ours}class_token",), SAME),
        Row(
            f"{theirs}.embeddings.patch_embedding.weight", (f"{ours}stem/kernel",), CONV
        ),
        Row(
            f"{theirs}.embeddings.position_embedding.weight",
            (f"{ours}positions",),
            SAME,
        ),
        *norm(f"{theirs}.pre_layrnorm", f"{ours}norm_in"),
        *_hf_stack(f"{theirs}.encoder", f"{ours}layers", cfg.depth),
        *norm(f"{theirs}.post_layernorm", f"{ours}norm_out"),
        Row("visual_projection.weight", (f"{ours}projection/kernel",), LINEAR),
    ]


def hf_text_table(cfg, ours=""):
    """Rows for a CLIPTextModelWithProjection; `ours` stands before our paths."""
    theirs = "text_model"
    tokens = f"{theirs}.embeddings.token_embedding.weight"
    return [
        Row(tokens, (f"{ours}tokens/embedding",), SAME),
        Row(
            f"{theirs}.embeddings.position_embedding.weight",
            (f"{ours}positions",),
            SAME,
        ),
        *_hf_stack(f"{theirs}.encoder", f"{ours}layers", cfg.depth),
        *norm(f"{theirs}.final_layer_norm", f"{ours}norm_out"),
        Row("text_projection.weight", (f"{ours}projection/kernel",), LINEAR),
    ]


def _check_epsilon(config):
    epsilon = config.get("layer_norm_eps", 1e-5)
    if epsilon != 1e-5:
        raise BadInput(f"layer_norm_eps is {epsilon}; only 1e-5 is supported.")


def _openai_stack(theirs, ours, depth):
    block = f"{theirs}.resblocks.{{i}}"
    kernels, biases = (
        tuple(f"{ours}/attention/{part}/{leaf}" for part in "qkv")
        for leaf in ("kernel", "bias")
    )
    return [
        *norm(f"{block}.ln_1", f"{ours}/norm_1", depth),
        Row(f"{block}.attn.in_proj_weight", kernels, fused(3, 0, LINEAR), depth),
        Row(f"{block}.attn.in_proj_bias", biases, fused(3, 0, SAME), depth),
        *weights(f"{block}.attn.out_proj", f"{ours}/attention/out", LINEAR, depth),
        *norm(f"{block}.ln_2", f"{ours}/norm_2", depth),
        *weights(f"{block}.mlp.c_fc", f"{ours}/mlp/up", LINEAR, depth),
        *weights(f"{block}.mlp.c_proj", f"{ours}/mlp/down", LINEAR, depth),
    ]


def _hf_stack(theirs, ours, depth):
    block = f"{theirs}.layers.{{i}}"
    names = [(f"self_attn.{part}_proj", f"attention/{part}") for part in "qkv"]
    names += [("self_attn.out_proj", "attention/out")]
    names += [("mlp.fc1", "mlp/up"), ("mlp.fc2", "mlp/down")]
    rows = [weights(f"{block}.{a}", f"{ours}/{b}", LINEAR, depth) for a, b in names]
    rows += [norm(f"{block}.layer_norm{n}", f"{ours}/norm_{n}", depth) for n in (1, 2)]
    return [row for pair in rows for row in pair]
