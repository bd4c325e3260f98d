"""Tiny random models of other libraries, saved as those libraries save them."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import (
    PriorTransformer,
    UnCLIPScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.pipelines.deprecated.unclip.pipeline_unclip import UnCLIPPipeline
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.diffusion.samplers import initial_noise
from dalle2_jax.unclip import draw, load, sample_keys

torch.set_num_threads(1)
CAPTIONS = ["a red ring", "two blue squares", "a small cross on the left"]
CONTEXT, CLIP = 12, 64
TEXT = {
    "hidden_size": CLIP,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "max_position_embeddings": CONTEXT,
    "hidden_act": "quick_gelu",
    "projection_dim": CLIP,
}
IMAGE = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "image_size": 16,
    "patch_size": 8,
    "projection_dim": CLIP,
}


def shaken(module, seed=0):
    """The module with every parameter away from zero and one, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            fan = p[0].numel() if p.dim() > 1 else 100
            p += torch.randn(p.shape, generator=generator) * 0.5 / fan**0.5
    return module.eval()


def tokenizer():
    """A vocabulary of our own."""
    return Tokenizer.train(CAPTIONS * 3, 560)


def text_config(made):
    return {
        **TEXT,
        "vocab_size": made.size,
        "bos_token_id": made.start,
        "eos_token_id": made.end,
        "pad_token_id": 0,
    }


def hf_clip(folder):
    """transformers.CLIPModel and its tokenizer in a folder."""
    made = tokenizer()
    text = CLIPTextConfig(**text_config(made))
    config = CLIPConfig(
        text_config=text.to_dict(),
        vision_config=CLIPVisionConfig(**IMAGE).to_dict(),
        projection_dim=CLIP,
    )
    torch.manual_seed(0)
    model = shaken(CLIPModel(config))
    model.save_pretrained(folder)
    made.save(folder)
    CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    (folder / "vocab.json").unlink()
    (folder / "merges.txt").unlink()
    return model, made


def unets():
    """Constructor arguments of the decoder and the super-resolution networks."""
    shared = {"layers_per_block": 1, "block_out_channels": (16, 24)}
    shared |= {"norm_num_groups": 8, "attention_head_dim": 8}
    decoder = {
        "sample_size": 8,
        "in_channels": 3,
        "out_channels": 6,
        "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "cross_attention_dim": 32,
        "class_embed_type": "identity",
        "resnet_time_scale_shift": "scale_shift",
        **shared,
    }
    upsampler = {
        "sample_size": 16,
        "in_channels": 6,
        "out_channels": 3,
        "down_block_types": ("ResnetDownsampleBlock2D",) * 2,
        "up_block_types": ("ResnetUpsampleBlock2D",) * 2,
        "add_attention": False,
        **shared,
    }
    return decoder, upsampler


def pipeline(folder, variation=False):
    """A whole UnCLIPPipeline, saved; variation: CLIP's image tower too."""
    made, (decoder, upsampler) = tokenizer(), unets()
    made.save(folder / "tokenizer")
    tokens = CLIPTokenizer.from_pretrained(
        folder / "tokenizer", pad_token="!", model_max_length=CONTEXT
    )
    torch.manual_seed(0)
    prior = PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        embedding_dim=CLIP,
        num_embeddings=CONTEXT,
        additional_embeddings=4,
        added_emb_type="prd",
    )
    first = {"num_train_timesteps": 1000, "variance_type": "fixed_small_log"}
    parts = {
        "prior": prior,
        "decoder": UNet2DConditionModel(**decoder),
        "text_proj": UnCLIPTextProjModel(
            clip_extra_context_tokens=2,
            clip_embeddings_dim=CLIP,
            time_embed_dim=64,
            cross_attention_dim=32,
        ),
        "text_encoder": CLIPTextModelWithProjection(
            CLIPTextConfig(**text_config(made))
        ),
        "super_res_first": UNet2DModel(**upsampler),
        "super_res_last": UNet2DModel(**upsampler),
    }
    parts = {name: shaken(part, i) for i, (name, part) in enumerate(parts.items())}
    with torch.no_grad():
        parts["prior"].clip_std.abs_()
    schedulers = {
        "prior_scheduler": UnCLIPScheduler(
            **first, prediction_type="sample", clip_sample_range=5.0
        ),
        "decoder_scheduler": UnCLIPScheduler(variance_type="learned_range"),
        "super_res_scheduler": UnCLIPScheduler(**first),
    }
    made = UnCLIPPipeline(tokenizer=tokens, **parts, **schedulers)
    made.save_pretrained(folder)
    if variation:
        tower = CLIPVisionModelWithProjection(CLIPVisionConfig(**IMAGE))
        shaken(tower).save_pretrained(folder / "image_encoder")
    return made


def states(folder):
    """{file: {key: tensor}} of every safetensors file below a folder."""
    from safetensors.torch import load_file

    paths = sorted(folder.rglob("*.safetensors"))
    return {str(p.relative_to(folder)): load_file(p) for p in paths}


SIDES = {"prior": (CLIP,), "decoder": (8, 8, 3), "super_res": (16, 16, 3)}
STEPS = {"prior": 25, "decoder": 25, "super_res": 7}
PLACES = {"prior": 100, "decoder": 200, "super_res": 300}  # stage -> folded into keys


def noise_of(keys):
    """Our noise in the order in which the pipeline asks for it: starts, steps."""
    starts, steps = {}, []
    for stage, shape in SIDES.items():
        own = jax.vmap(lambda k, n=PLACES[stage]: jax.random.fold_in(k, n))(keys)
        starts[f"{stage}_latents"] = to_torch(initial_noise(own, shape))
        for i in range(STEPS[stage] - 1):
            each = jax.vmap(lambda k, i=i: jax.random.fold_in(k, i))(own)
            normal = jax.vmap(lambda k, s=shape: jax.random.normal(k, s))(each)
            steps.append(to_torch(normal))
    return starts, steps


def to_torch(x):
    x = np.asarray(x)
    return torch.tensor(x.transpose(0, 3, 1, 2) if x.ndim == 4 else x)


def pictures_of(pipe):
    """The pipeline's pictures of the captions with the noise of our sampler."""
    keys = sample_keys(3, 0, len(CAPTIONS))
    starts, steps = noise_of(keys)
    drawn = iter(steps)
    pipe.set_progress_bar_config(disable=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "diffusers.schedulers.scheduling_unclip.randn_tensor",
            lambda shape, **_: next(drawn).reshape(shape),
        )
        return pipe(CAPTIONS, output_type="np", **starts).images


def our_pictures(model):
    """What our sampler draws for the same captions: float [b, y, x, 3] in [0, 1]."""
    model = load(model)
    tokens = model.tokenizer.encode(CAPTIONS, CONTEXT)
    keys = sample_keys(3, 0, len(tokens))
    with jax.default_matmul_precision("highest"):
        return np.asarray(draw(model, jnp.asarray(tokens), keys, {}) / 2 + 0.5)


def loaded(folder):
    """The pipeline that the loader beside an export builds."""
    spec = importlib.util.spec_from_file_location("l", folder / "load_pipeline.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    return loader.load()
