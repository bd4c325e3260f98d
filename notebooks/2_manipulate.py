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
# # Pictures to pictures
#
# Sections 3 and 4 of the paper, and what GLIDE, RePaint and SDEdit add to them. Each
# cell is one manipulation: a function of `dalle2_jax.manipulate` or
# `dalle2_jax.probe`, and a command of the same name.
#
# The model is `$MODEL`, by default the one that `make quickstart` trains.

# %%
from dalle2_jax.cli.notebook import show, start

MODEL, FAST = start()
MODEL

# %%
from dataclasses import replace

from dalle2_jax.manipulate.latent import EXACT
from dalle2_jax.manipulate.reading import picture_side
from dalle2_jax.unclip import UnCLIP

model = UnCLIP.load(MODEL)
SIDE = picture_side(model)  # pixels of what it draws
HOW = replace(EXACT, steps="10") if FAST else EXACT  # DDIM, eta = 0, 100 steps
N = 2 if FAST else 6  # pictures in a row

# %% [markdown]
# ## Two pictures
#
# Renders of the world that the quickstart learns. `[n, y, x, 3]` in $[-1, 1]$, which is
# how every manipulation takes its pictures.

# %%
import numpy as np

from dalle2_jax.data.render_shapes import render
from dalle2_jax.data.shapes import Spec, Thing
from dalle2_jax.unclip import from_uint8

circle = Spec("simple", (Thing("circle", "red", "large", "left"),), "white")
cross = Spec("simple", (Thing("cross", "green", "small", "right"),), "grey")
rng = np.random.default_rng(0)
pictures = from_uint8(np.stack([render(spec, SIDE, rng) for spec in (circle, cross)]))
one, two = pictures[:1], pictures[1:]
show(pictures, ["a large red circle on the left", "a small green cross on the right"])

# %% [markdown]
# ## A picture as the latent $(z_i, x_T)$
#
# $z_i$ is what CLIP sees in the picture. $x_T$, found by running DDIM backwards under
# that $z_i$, is all the rest: it looks like noise, and is not.

# %%
from dalle2_jax.manipulate.latent import encode

latent = encode(model, pictures, how=HOW)
print("z_i", latent.z_image.shape, " x_T", latent.x_T.shape)
show(np.clip(latent.x_T / 3, -1, 1), ["x_T", "x_T"])

# %% [markdown]
# **Reconstruction.** Decoded by DDIM with $\eta = 0$, the pair gives the picture back.

# %%
from dalle2_jax.manipulate.variations import reconstruct

again = reconstruct(model, pictures, how=HOW)
show(np.concatenate([pictures, again]), ["given"] * 2 + ["reconstructed"] * 2)

# %% [markdown]
# ## Variations (section 3.1)
#
# With $\eta > 0$ new noise comes in on the way: what is in $z_i$ stays, the rest may
# change.

# %%
from dalle2_jax.manipulate.variations import variations

etas = [1.0] if FAST else [0.5, 1.0]
rows = [variations(model, one, N, eta, HOW) for eta in etas]
show(np.concatenate(rows), [f"eta = {eta}" for eta in etas for _ in range(N)], N)

# %% [markdown]
# ## Interpolation (section 3.2)
#
# Slerp from one $z_i$ to the other. With $x_T$ interpolated as well, the ends are
# reconstructions of the two pictures.

# %%
from dalle2_jax.manipulate.interpolate import interpolate

show(interpolate(model, pictures, N, how=HOW), np.linspace(0, 1, N).round(2))

# %% [markdown]
# With one fixed $x_T$ for all, only the content moves. Three choices of it:

# %%
rows = [interpolate(model, pictures, N, "fixed", HOW, seed) for seed in range(3)]
show(np.concatenate(rows), [f"x_T {i}" for i in range(3) for _ in range(N)], N)

# %% [markdown]
# **Mixing.** A weighted sum of the embeddings of any number of pictures and captions.

# %%
from dalle2_jax.manipulate.interpolate import mix

caption = "a small blue ring at the top on white"
weights = [(1, 0, 0), (1, 1, 0), (1, 0, 1), (1, 1, 1), (0, 1, 1), (0, 0, 1)][:N]
mixed = [mix(model, pictures, [caption], weight, how=HOW) for weight in weights]
show(np.concatenate(mixed), [f"weights {weight}" for weight in weights])

# %% [markdown]
# ## Text diffs (section 3.3)
#
# $z_d = \mathrm{norm}(z_t - z_{t_0})$ is what has to change; $z_i$ is turned towards it
# by an angle $\theta$, $x_T$ stays. The caption before the change, $z_{t_0}$, may be
# the picture's own, "a photo", or empty.

# %%
from dalle2_jax.manipulate.text_diff import text_diff

new, olds = "a large blue circle on the left", ["a large red circle on the left", ""]
rows = [text_diff(model, one, new, old, 0.7, N, HOW) for old in olds]
thetas = [f"theta {theta:.2f}" for theta in np.linspace(0, 0.7, N)]
show(np.concatenate(rows), thetas * len(olds), N)

# %% [markdown]
# ## Inpainting
#
# Known pixels stay, the others are drawn for a caption. This decoder was not trained
# with masks, so known pixels are noised to each level and put back there, and each
# level is walked several times (RePaint). A decoder with `DecoderConfig.inpaint` is
# given picture and mask instead (GLIDE); the call is the same.

# %%
from dalle2_jax.manipulate.inpaint import inpaint

known, part = np.ones((1, SIDE, SIDE, 1), bool), SIDE // 16
known[:, 2 * part : 14 * part, : 11 * part] = False  # where the circle is
wanted = "a large blue square on the left on white"
given = np.where(known, one, 0)
drawn = [inpaint(model, one, known, [wanted], seed=seed) for seed in range(2)]
show(np.concatenate([one, given, *drawn]), ["given", "known", wanted, wanted])

# %% [markdown]
# **Outpainting.** The picture becomes the middle of a larger one.

# %%
from dalle2_jax.manipulate.inpaint import outpaint_canvas

canvas, inside = outpaint_canvas(one, 0.25)
wider = inpaint(model, canvas, inside)
show(np.concatenate([one, np.where(inside, canvas, 0), wider]), ["given", "known", ""])

# %% [markdown]
# **Iterative editing.** Several masked captions in a row, each on the last one's
# result.

# %%
from dalle2_jax.manipulate.inpaint import edits

whole = np.zeros_like(known)
whole[:, :part] = True
steps = [
    (known, "a large blue circle on the left on white"),
    (known, "a large yellow ring on the left on white"),
    (whole, "a large yellow ring on the right on white"),
]
made = list(edits(model, one, steps))
show(np.concatenate([one, *made]), ["given", *(words for _, words in steps)])

# %% [markdown]
# ## Image to image
#
# The picture is noised part of the way and drawn anew from there (SDEdit), here under
# another caption. At strength 1 nothing is left of it but what the caption says.

# %%
from dalle2_jax.manipulate.inpaint import image_to_image

strengths = np.linspace(0.25, 1, N)
wanted = ["a large purple circle on the left on white"]
redrawn = [image_to_image(model, one, float(s), wanted) for s in strengths]
show(np.concatenate([one, *redrawn]), ["given", *strengths.round(2)])

# %% [markdown]
# ## Upsampling
#
# The last stage alone, on any small picture.

# %%
from dalle2_jax.manipulate.latent import to_size
from dalle2_jax.unclip import sample_keys, upsample

small = to_size(pictures, model.decoder.cfg.size)
large = upsample(model, small, sample_keys(0, 0, 2), {})
print(small.shape, "->", large.shape)
show(
    np.concatenate([to_size(small, large.shape[1]), large]),
    ["small"] * 2 + ["large"] * 2,
)

# %% [markdown]
# ## What the latent space holds (section 4)
#
# **Principal components.** $z_i$ with all but its first components set to their mean,
# decoded from one $x_T$: first come the things that matter most to CLIP.

# %%
from dalle2_jax.data.write_shapes import evaluation_specs
from dalle2_jax.evaluate.clip_score import image_features
from dalle2_jax.probe.pca import pca_reconstructions, principal_axes

seen = evaluation_specs("simple", 256 if FAST else 2048, seed=1, held_out=False)
mean, axes = principal_axes(image_features(model.clip, seen.images))
counts = [n for n in (0, 2, 4, 8, 16, 32, 64) if n <= len(axes)]
grown = pca_reconstructions(model, one, mean, axes, counts, HOW)
show(np.concatenate([one, grown]), ["given", *(f"{n} components" for n in counts)])

# %% [markdown]
# **Typographic attack.** Words on the picture, what CLIP then takes it for, and
# variations of it.

# %%
from dalle2_jax.probe.typographic import attack
from dalle2_jax.unclip import to_uint8

labels = ["a red circle", "a green cross"]
sheet, chances = attack(model, to_uint8(one)[0], "cross", labels, count=N - 1)
for label, (before, after) in chances.items():
    print(f"{label}: {before:.3f} without the word, {after:.3f} with it")
show(sheet, ["attacked", *["variation"] * (N - 1)])
