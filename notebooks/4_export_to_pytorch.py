# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From here to PyTorch
#
# What is trained here in Karlo's form (the `:karlo` configurations) goes into a folder
# that diffusers and transformers read. This notebook trains a tiny unCLIP in that form,
# exports it, loads every part there, and draws the same pictures in both.
#
# It downloads nothing; `pip install torch diffusers accelerate` is needed beside this
# package.

# %%
import tempfile
from importlib.resources import files
from pathlib import Path

from dalle2_jax.cli.notebook import fast, show
from dalle2_jax.data.write_shapes import make_shapes

FAST = fast()
CONFIGS = files("dalle2_jax.configs")
WORK = Path(tempfile.mkdtemp())
shards = make_shapes("simple", 64 if FAST else 8192, 0, WORK / "data", size=32)

# %% [markdown]
# ## A tiny model in Karlo's form
#
# Five networks. Karlo's configurations, made smaller field by field, as `--config.NAME=
# VALUE` would do on the command line:

# %%
UNET = ["unet.channels=32", "unet.multiples=(1,2)", "unet.depth=1", "unet.remat=False"]
UNET += ["unet.dtype=float32"]
UPSAMPLER = [*UNET, "size=16", "factor=2"]
IMAGE = ["image.size=16", "image.stem=patch", "image.head=class"]
PRIOR = ["clip=64", "text_width=64", "width=32", "heads=2", "depth=2", "context=20"]
DECODER = ["size=8", "clip=64", "text_width=64", "tokens=2", "unet.attend=(2,)"]
DECODER += [*UNET, "unet.head_width=16", "unet.context_width=32"]

MODELS = {  # stage: configuration, fields of `model`
    "clip": ("clip.py:small", ["unit=False", *IMAGE, "text.context=20"]),
    "prior": ("prior_diffusion.py:karlo", [*PRIOR, "dtype=float32"]),
    "decoder": ("decoder_64.py:karlo", DECODER),
    "upsampler": ("upsampler_256.py:karlo", UPSAMPLER),
    "upsampler_last": ("upsampler_256.py:karlo", UPSAMPLER),
}
RUNS = {  # stage: other fields
    "prior": ["codes_from=32" if FAST else "codes_from=2048"],
    "upsampler": ["corrupt.crop=1.0"],
    "upsampler_last": ["corrupt.crop=1.0", "stage=upsampler_last", "seed=1"],
}

# %%
from dalle2_jax.cli.overrides import load_run

steps, batch = (4, 8) if FAST else (600, 32)
usual = [f"steps={steps}", f"batch={batch}", "optim.rate=2e-3", "optim.warmup=0"]
usual += ["optim.ema=0.0", "data.size=16", "data.context=20", "data.group=1"]


def run_of(stage):
    """The tiny configuration of a stage."""
    name, model = MODELS[stage]
    changes = [*usual, *(f"model.{change}" for change in model), *RUNS.get(stage, [])]
    return load_run(CONFIGS / name, [f"--config.{change}" for change in changes])


# %% [markdown]
# Trained one after another; each borrows the frozen CLIP from the model directory, and
# leaves its weights there.

# %%
from dalle2_jax.train.fit import Job, fit

MODEL = WORK / "model"
for stage in MODELS:
    fit(run_of(stage), Job([str(path) for path in shards], WORK / stage, MODEL))
sorted(path.name for path in MODEL.iterdir())

# %% [markdown]
# ## Drawn here

# %%
from dalle2_jax.unclip import UnCLIP

captions = ["a large red circle on the left on white", "a small blue ring on black"]
captions += ["a large green cross in the centre on grey"]
model = UnCLIP.load(MODEL)
ours = model.generate(captions, seed=3)
show(ours, captions)

# %% [markdown]
# ## Exported
#
# `dalle2 export MODEL --format diffusers --to DIR` does the same. Safetensors and JSON,
# and a loader of ten lines, since diffusers 0.38 and later do not load a whole UnCLIP
# folder by themselves.

# %%
from dalle2_jax.convert.exporter import export_weights

THERE = WORK / "diffusers"
for name in export_weights(MODEL, THERE, "diffusers"):
    print(name)

# %% [markdown]
# ## Loaded by diffusers and transformers
#
# Part by part, with the classes of those libraries and none of ours.

# %%
from diffusers import PriorTransformer, UNet2DConditionModel, UNet2DModel
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

classes = {
    "text_encoder": CLIPTextModelWithProjection,
    "prior": PriorTransformer,
    "decoder": UNet2DConditionModel,
    "super_res_first": UNet2DModel,
    "super_res_last": UNet2DModel,
}
parts = {name: kind.from_pretrained(THERE / name) for name, kind in classes.items()}
for name, part in parts.items():
    print(f"{name}: {part.num_parameters():,} parameters")

# %% [markdown]
# **CLIP.** The text embedding $z_t$ of the captions, there and here:

# %%
import numpy as np
import torch

from dalle2_jax.manipulate.latent import hear

tokenizer = CLIPTokenizer.from_pretrained(THERE / "tokenizer")
tokens = tokenizer(captions, padding="max_length", return_tensors="pt")
with torch.no_grad():
    z_t = parts["text_encoder"](**tokens).text_embeds.numpy()
float(np.abs(z_t - np.asarray(hear(model, captions).pooled)).max() / np.abs(z_t).max())

# %% [markdown]
# ## The same pictures
#
# Two libraries draw different noise from the same seed, so theirs is given ours: $x_T$
# of every stage, and what its steps add, in the order in which the pipeline asks.

# %%
import jax

from dalle2_jax.diffusion.samplers import initial_noise
from dalle2_jax.diffusion.walk import sample_keys, stage_keys


def torch_of(x):
    """[b, y, x, c] -> tensor [b, c, y, x]; [b, c] stays."""
    x = np.asarray(x)
    return torch.tensor(x.transpose(0, 3, 1, 2) if x.ndim == 4 else x)


def normal(keys, step, shape):
    """What step number `step` adds: float32 [b, *shape]."""
    own = jax.vmap(lambda key: jax.random.fold_in(key, step))(keys)
    return jax.vmap(lambda key: jax.random.normal(key, shape))(own)


keys, starts, added = sample_keys(3, 0, len(captions)), {}, []
stages = [("prior", 100, (64,), 25), ("decoder", 200, (8, 8, 3), 25)]
stages += [("super_res", 300, (16, 16, 3), 7)]
for name, number, shape, count in stages:
    own = stage_keys(keys, number)
    starts[f"{name}_latents"] = torch_of(initial_noise(own, shape))
    added += [torch_of(normal(own, step, shape)) for step in range(count - 1)]

# %%
import runpy
from unittest.mock import patch

pipeline = runpy.run_path(str(THERE / "load_pipeline.py"))["load"](THERE)
pipeline.set_progress_bar_config(disable=True)
where, drawn = "diffusers.schedulers.scheduling_unclip.randn_tensor", iter(added)
with patch(where, lambda shape, **_: next(drawn).reshape(shape)):
    theirs = pipeline(captions, output_type="np", **starts).images
theirs = np.floor(theirs * 255 + 0.5).astype(np.uint8)
print("largest difference:", np.abs(theirs.astype(int) - ours).max(), "of 255")
show(np.concatenate([ours, theirs]), ["here"] * 3 + ["diffusers"] * 3, columns=3)

# %% [markdown]
# ## Only CLIP
#
# Both towers as one `CLIPModel` of transformers; OpenCLIP and OpenAI's format are other
# names for `--format`. Which caption does each CLIP choose for these pictures?

# %%
from transformers import CLIPModel

from dalle2_jax.clip.image import preprocess
from dalle2_jax.clip.zero_shot import classify
from dalle2_jax.data.write_shapes import evaluation_specs
from dalle2_jax.unclip import from_uint8

export_weights(MODEL, WORK / "clip_there", "hf_clip")
theirs = CLIPModel.from_pretrained(WORK / "clip_there")
seen = evaluation_specs("simple", 4, seed=5, size=16)
pixels = torch_of(preprocess(model.clip.cfg.image, from_uint8(seen.images)))
tokens = tokenizer(seen.captions, padding="max_length", return_tensors="pt")
with torch.no_grad():
    scores = theirs(**tokens, pixel_values=pixels).logits_per_image.softmax(-1).numpy()
print(scores.round(3))
print(classify(model.clip, model.tokenizer, seen.images, seen.captions).round(3))
