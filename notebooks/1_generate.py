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
# # Captions to pictures
#
# unCLIP draws a picture $x$ for a caption $y$ in two steps (paper, section 2):
#
# $$P(x \mid y) = P(x \mid z_i, y)\, P(z_i \mid y)$$
#
# The **prior** draws $z_i$, the CLIP embedding that a picture of this caption would
# have. The **decoder** draws a picture that has it, and **upsamplers** enlarge it.
#
# The model is `$MODEL`, by default the one that `make quickstart` trains.

# %%
from dalle2_jax.cli.notebook import show, start

MODEL, FAST = start()
MODEL

# %%
from dalle2_jax.unclip import UnCLIP

model = UnCLIP.load(MODEL)
[stage for stage in model._fields if getattr(model, stage) is not None]

# %% [markdown]
# ## Pictures
#
# The training set of the quickstart has no red triangle and no blue square: here are
# some. A list of captions goes in, `uint8 [n, y, x, 3]` comes out.

# %%
captions = [
    "a large red triangle on the left on white",
    "on grey, a small blue square at the top",
    "a large green ring in the centre on a black background",
    "on the right, a small yellow cross on grey",
]
show(model.generate(captions), captions)

# %% [markdown]
# ## Seeds
#
# Picture number $i$ is a function of (model, caption, seed, $i$, settings): not of the
# batch around it, not of the number of devices. The same caption four times:

# %%
caption = captions[0]
show(model.generate([caption] * 4, seed=1), [f"sample {i}" for i in range(4)])

# %% [markdown]
# The same four, two of them in each program, are the same four (to the rounding of a
# pixel).

# %%
import numpy as np

all_at_once = model.generate([caption] * 4, seed=1).astype(int)
two_by_two = model.generate([caption] * 4, seed=1, batch=2).astype(int)
int(np.abs(all_at_once - two_by_two).max())

# %% [markdown]
# ## How the stages are sampled
#
# A `Sampling` per stage says in how many steps, by which sampler and with how much
# guidance. What the model was configured with:

# %%
from dalle2_jax.unclip import prior_of, sampling_of

stages = [prior_of(model), "decoder", "upsampler", "upsampler_2"]
for stage in (stage for stage in stages if getattr(model, stage) is not None):
    way = sampling_of(getattr(model, stage))
    print(f"{stage}: {way.steps} steps, {way.sampler}, guidance {way.guidance:g}")

# %% [markdown]
# **Steps.** Fewer steps are another table for the same sampler (IDDPM, section 4).

# %%
from dataclasses import replace

usual = sampling_of(model.decoder)


def drawn(**changes):
    """The caption with another decoder."""
    how = {"decoder": replace(usual, **changes)}
    return model.generate([caption], seed=1, how=how)[0]


steps = ["2"] if FAST else ["2", "4", "12", "64"]
show(np.stack([drawn(steps=n) for n in steps]), [f"{n} steps" for n in steps])

# %% [markdown]
# **Guidance.** Classifier-free: $\hat\epsilon = \epsilon_\emptyset + s\,(\epsilon -
# \epsilon_\emptyset)$. At $s = 1$ there is none, and each step costs one network call
# instead of two.

# %%
scales = [1.0] if FAST else [1.0, 2.0, 4.0, 8.0]
show(np.stack([drawn(guidance=s) for s in scales]), [f"s = {s:g}" for s in scales])

# %% [markdown]
# **Samplers.** From one $x_T$: DDPM, DDIM, and DPM-Solver++ (2M).

# %%
samplers = ["dpm"] if FAST else ["ancestral", "ddim", "dpm"]
show(np.stack([drawn(sampler=name) for name in samplers]), samplers)

# %% [markdown]
# ## Reranking
#
# Draw eight, keep the four that CLIP finds closest to the caption.

# %%
from dalle2_jax.evaluate.clip_score import rerank

n, keep = (4, 2) if FAST else (8, 4)
candidates = model.generate([caption] * n, seed=2)
best, cosines = rerank(model, candidates, [caption] * n, n, keep)
show(candidates[best], [f"cosine {c:.3f}" for c in cosines])

# %% [markdown]
# ## What the prior is for
#
# The decoder can be told $z_i$ from elsewhere (paper, section 5.1): from the prior, or
# the caption's own text embedding in its place, or nothing but the caption.

# %%
from dalle2_jax.unclip import generate

routes = {"prior": "prior", "text": "text embedding as z_i", "none": "caption only"}
rows = [next(generate(model, captions, seed=3, route=name)) for name in routes]
names = [name for name in routes.values() for _ in captions]
show(np.concatenate(rows), names, columns=len(captions))
