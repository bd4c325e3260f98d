"""Parity of CLIP: OpenAI's class, OpenCLIP's two, three of transformers, GLIDE's."""

import jax
import jax.numpy as jnp

from dalle2_jax.clip import noised
from dalle2_jax.clip.contrastive import Clip, example
from dalle2_jax.clip.image import ImageTower
from dalle2_jax.clip.noised import NoisedClip
from dalle2_jax.clip.text import TextTower
from dalle2_jax.convert import openai_clip
from dalle2_jax.convert.glide_clip import glide_clip_config, glide_clip_table
from dalle2_jax.convert.rename import import_params
from dalle2_jax.layers.embeddings import normalised
from dalle2_jax.layers.init import param_shapes


def to_ours(image):
    """(b, c, y, x) -> [b, y, x, c]."""
    return jnp.moveaxis(jnp.asarray(image), 1, -1)


def to_theirs(image):
    """[b, y, x, c] -> (b, c, y, x)."""
    return jnp.moveaxis(image, -1, 1)


def openai(case):
    """clip.model.CLIP, with a ViT or a ResNet."""
    cfg = openai_clip.openai_config(case.config)
    table = openai_clip.openai_table(cfg)
    outputs, text, _ = _both(case, cfg, table, ("image", "text"))
    return {**outputs, "text_hidden": text.states}


def openclip(case):
    """open_clip.model.CLIP."""
    cfg = openai_clip.openclip_config(case.config)
    return _openclip(case, cfg, openai_clip.openai_table(cfg))


def openclip_custom(case):
    """open_clip.model.CustomTextCLIP: the text tower under "text."."""
    cfg = openai_clip.openclip_config(case.config)
    return _openclip(case, cfg, openai_clip.openai_table(cfg, "text."))


def hf_model(case):
    """transformers.CLIPModel."""
    cfg = openai_clip.hf_config(case.config)
    table = openai_clip.hf_table(cfg)
    outputs, _, model = _both(case, cfg, table, ("pixel_values", "input_ids"))
    masked = model(
        "encode_text", case.inputs["input_ids"], case.inputs["attention_mask"]
    )
    z_image = normalised(outputs["image_features"])
    z_masked = normalised(masked.pooled)
    scale = outputs["scale"]
    return {
        "image_embeds": z_image,
        "text_embeds": normalised(outputs["text_features"]),
        "text_embeds_masked": z_masked,
        "logits_per_image": outputs["logits_per_image"],
        "logits_per_text": outputs["logits_per_text"],
        "logits_per_image_masked": scale * z_image @ z_masked.T,
    }


def hf_text(case):
    """transformers.CLIPTextModelWithProjection."""
    config = case.config.get("text_config", case.config)
    cfg = openai_clip.hf_text_config(config)
    tokens, mask = case.inputs["input_ids"], case.inputs["attention_mask"]
    tower = TextTower(cfg, config.get("projection_dim", 512))
    shapes = param_shapes(tower, tokens)
    params = _import(case, openai_clip.hf_text_table(cfg), shapes)
    plain, masked = (jax.jit(tower.apply)(params, tokens, m) for m in (None, mask))
    return {
        "last_hidden_state": plain.states,
        "text_embeds": plain.pooled,
        "last_hidden_state_masked": masked.states,
        "text_embeds_masked": masked.pooled,
    }


def hf_vision(case):
    """transformers.CLIPVisionModelWithProjection."""
    config = case.config.get("vision_config", case.config)
    cfg = openai_clip.hf_image_config(config)
    pixels = to_ours(case.inputs["pixel_values"])
    tower = ImageTower(cfg, config.get("projection_dim", 512))
    params = _import(case, openai_clip.hf_image_table(cfg), param_shapes(tower, pixels))
    features = jax.jit(tower.apply)(params, pixels)
    return {"image_embeds": features.pooled, "last_hidden_state": features.states}


def glide_clip(case):
    """GLIDE's noised CLIP and the gradient that guides its sampler."""
    cfg = glide_clip_config(case.config)
    model = NoisedClip(cfg)
    shapes = param_shapes(model, *noised.example(cfg))
    params = _import(case, glide_clip_table(cfg), shapes)
    x_t, t = to_ours(case.inputs["images"]), jnp.asarray(case.inputs["timesteps"])
    tokens, lengths = case.inputs["text"], case.inputs["text_len"]
    image = jax.jit(lambda: model.apply(params, x_t, t, method="encode_image"))()
    text = jax.jit(lambda: model.apply(params, tokens, lengths, method="encode_text"))()
    gradient = noised.caption_gradient(
        cfg, params["params"], normalised(text), case.config["grad_scale"]
    )
    return {
        "image_features": image,
        "text_features": text,
        "image_embeddings": normalised(image),
        "text_embeddings": normalised(text),
        "cond_fn_grad": to_theirs(jax.jit(gradient)(x_t, t)),
    }


CLIP_FAMILIES = {
    "clip_openai_vit": openai,
    "clip_openai_resnet": openai,
    "clip_openclip": openclip,
    "clip_openclip_custom": openclip_custom,
    "clip_hf_model": hf_model,
    "clip_hf_text": hf_text,
    "clip_hf_vision": hf_vision,
    "glide_clip": glide_clip,
}


def _openclip(case, cfg, table):
    outputs, _, _ = _both(case, cfg, table, ("image", "text"))
    for name in ("image_features", "text_features"):
        outputs[f"{name}_normalized"] = normalised(outputs[name])
    return outputs


def _both(case, cfg, table, names):
    """Runs both towers: (outputs in OpenAI's names, TextFeatures, the model)."""
    clip = Clip(cfg)
    params = _import(case, table, param_shapes(clip, *example(cfg)))

    def model(method, *args):
        return jax.jit(lambda p, *a: clip.apply(p, *a, method=method))(params, *args)

    pixels, tokens = to_ours(case.inputs[names[0]]), case.inputs[names[1]]
    image, text = model("encode_image", pixels), model("encode_text", tokens)
    scale = jnp.exp(params["params"]["log_scale"])
    logits = scale * normalised(image) @ normalised(text.pooled).T
    outputs = {
        "image_features": image,
        "text_features": text.pooled,
        "logits_per_image": logits,
        "logits_per_text": logits.T,
        "scale": scale,
    }
    return outputs, text, model


def _import(case, table, shapes):
    ignored = openai_clip.IGNORED
    return {"params": import_params(case.params, table, shapes, case.path, ignored)}
