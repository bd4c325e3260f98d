"""Parity of ADM and GLIDE: U-Nets, upsamplers, inpainting, the noisy classifier."""

import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.convert import adm, glide
from dalle2_jax.convert.parity_clip import to_ours, to_theirs
from dalle2_jax.convert.rename import import_params
from dalle2_jax.decoder import classifier as classifiers
from dalle2_jax.decoder.classifier import Classifier, gradient
from dalle2_jax.decoder.decoder import Condition, Decoder, example
from dalle2_jax.decoder.upsampler import enlarge
from dalle2_jax.layers.init import param_shapes


def unet(case):
    """guided_diffusion.unet.UNetModel."""
    out, _ = _decoder(case, *import_adm(case))
    return {"out": out}


def superres(case):
    """guided_diffusion.unet.SuperResModel: bilinear enlargement inside the class."""
    out, _ = _decoder(case, *import_adm(case))
    x, low = (to_ours(case.inputs[name]) for name in ("x", "low_res"))
    return {
        "out": out,
        "low_res_upsampled": to_theirs(enlarge(low, x.shape, "bilinear")),
    }


def classifier(case):
    """guided_diffusion.unet.EncoderUNetModel."""
    cfg, params = import_classifier(case)
    x, t, y = (case.inputs[name] for name in ("x", "timesteps", "y"))
    x = to_ours(x)
    logits = jax.jit(Classifier(cfg).apply)({"params": params}, x, t)
    push = jax.jit(gradient(cfg, params, jnp.asarray(y)))
    return {
        "logits": logits,
        "log_prob": jax.nn.log_softmax(logits),
        "grad_log_prob": to_theirs(push(x, t)),
    }


def text2im(case):
    """glide_text2im's Text2ImUNet, SuperResText2ImUNet and InpaintText2ImUNet."""
    cfg, params = import_glide(case)
    out, kept = _decoder(case, cfg, params)
    outputs = {
        "out": out,
        "xf_proj": kept["time"],
        "xf_out": kept["context"].swapaxes(1, 2),
    }
    if cfg.inpaint:
        blind = {"inpaint_image", "inpaint_mask"}
        inputs = {k: v for k, v in case.inputs.items() if k not in blind}
        outputs["out_noimage"] = _decoder(case._replace(inputs=inputs), cfg, params)[0]
    return outputs


ADM_FAMILIES = {
    "unet_guided_diffusion_new": unet,
    "unet_guided_diffusion_legacy": unet,
    "superres_guided_diffusion": superres,
    "classifier_guided_diffusion": classifier,
    "glide_text2im": text2im,
    "glide_inpaint": text2im,
    "glide_superres": text2im,
}


def import_adm(case):
    """(DecoderConfig, params) of a UNetModel or SuperResModel."""
    cfg = adm.decoder_config(_sizes(case))
    shapes = param_shapes(Decoder(cfg), *example(cfg))
    new_order = case.config.get("use_new_attention_order", False)
    table = adm.decoder_table(cfg, shapes, new_order)
    return cfg, import_params(case.params, table, shapes, case.path)


def import_classifier(case):
    """(ClassifierConfig, params) of an EncoderUNetModel."""
    cfg = adm.classifier_config(case.config)
    shapes = param_shapes(Classifier(cfg), *classifiers.example(cfg))
    new_order = case.config.get("use_new_attention_order", False)
    table = adm.classifier_table(cfg, shapes, new_order)
    return cfg, import_params(case.params, table, shapes, case.path)


def import_glide(case):
    """(DecoderConfig, params) of a GLIDE model."""
    cfg = glide.glide_config(_sizes(case))
    shapes = param_shapes(Decoder(cfg), *example(cfg))
    table = glide.glide_table(cfg, shapes)
    return cfg, import_params(case.params, table, shapes, case.path)


def _sizes(case):
    """The file's constructor arguments and what its inputs add to them."""
    low = case.inputs.get("low_res")
    return {
        "image_size": case.inputs["x"].shape[-1],
        **case.config,
        "low_res": 0 if low is None else low.shape[-1],
        "inpaint": "inpaint_image" in case.inputs,
    }


def _decoder(case, cfg, params):
    """A decoder without z_i on the file's inputs: (output, kept intermediates)."""
    inputs, x = case.inputs, to_ours(case.inputs["x"])

    def picture(name):
        return to_ours(inputs[name]) if name in inputs else None

    cond = Condition(
        z_image=np.zeros((len(x), 0), np.float32),
        tokens=inputs.get("tokens"),
        mask=inputs.get("mask"),
        low_res=picture("low_res"),
        known=picture("inpaint_image"),
        is_known=picture("inpaint_mask"),
        label=inputs.get("y"),
    )
    apply = jax.jit(lambda *a: Decoder(cfg).apply(*a, mutable=["intermediates"]))
    out, kept = apply({"params": params}, x, inputs["timesteps"], cond)
    return to_theirs(out), {k: v[0] for k, v in kept["intermediates"].items()}
