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
# # FID, KID and CLIP score
#
# How far are drawn pictures from real ones? Both go through a feature network; the
# distance is between their features. On a pod the same command runs on every host
# (`dalle2 launch`, or `launch/`), with a larger `--n`.
#
# | variable | what | by default |
# |---|---|---|
# | `MODEL` | model directory | what `make quickstart` trains |
# | `DATA` | tar shards of real pictures with captions | the quickstart's world |
# | `N` | pictures on each side | 200 |
# | `INCEPTION` | weights of the 2015 Inception | none: the model's own CLIP judges |

# %%
import json
import os
import shlex
import tempfile
from pathlib import Path

from dalle2_jax.cli.notebook import show, start

MODEL, FAST = start()
N = int(os.environ.get("N", 8 if FAST else 200))
INCEPTION = os.environ.get("INCEPTION")
WORK = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The real pictures
#
# The first records of the quickstart's training set, rendered again: record $i$ is a
# function of (world, seed, $i$).

# %%
from dalle2_jax.data.write_shapes import make_shapes

if "DATA" not in os.environ:
    make_shapes("simple", N, seed=0, out_dir=WORK / "data")
DATA = os.environ.get("DATA", str(WORK / "data" / "*.tar"))
DATA

# %% [markdown]
# ## One command
#
# It draws a picture for each caption, takes the features of both sets, and writes the
# numbers with their protocol. What is done is kept beside `--out`: after an
# interruption the same command goes on. Here it is called in this process;
# `dalle2 evaluate ...` in a shell is the same.

# %%
from dalle2_jax.cli.main import main

command = ["evaluate", "--model", str(MODEL), "--data", DATA, "--n", str(N)]
command += ["--metrics", "fid,kid,precision,recall,clip_score"]
command += ["--out", str(WORK / "scores.json"), "--keep-samples", str(WORK / "samples")]
command += ["--inception", INCEPTION] if INCEPTION else []
print(shlex.join(["dalle2", *command]))
assert main(command) == 0

# %% [markdown]
# Beside each number stands how it was measured. A Fréchet distance without its feature
# network, resize rule and number of pictures compares with nothing.

# %%
scores = json.loads((WORK / "scores.json").read_text())["scores"]
scores["fid"]

# %% [markdown]
# ## What was compared

# %%
import numpy as np

from dalle2_jax.evaluate.pictures import open_pictures

drawn = open_pictures(str(WORK / "samples"))
side = drawn.fetch([0]).shape[1]
real = open_pictures(DATA, size=side)
few = list(range(min(8, N)))
names = ["real"] * len(few) + ["drawn"] * len(few)
show(np.concatenate([real.fetch(few), drawn.fetch(few)]), names, columns=len(few))

# %% [markdown]
# ## The same number by hand
#
# The Fréchet distance (Heusel et al. 2017, equation 6) takes both sets of features for
# Gaussians:
#
# $$\lVert\mu_1-\mu_2\rVert^2 + \mathrm{tr}\,\bigl(\Sigma_1+\Sigma_2
# -2\,(\Sigma_1\Sigma_2)^{1/2}\bigr)$$

# %%
from dalle2_jax.evaluate.features import clip_extractor, extract, inception_extractor
from dalle2_jax.evaluate.frechet import frechet_distance, moments
from dalle2_jax.unclip import UnCLIP

model = UnCLIP.load(MODEL)
judge = inception_extractor(INCEPTION) if INCEPTION else clip_extractor(model.clip)
ours, theirs = (
    extract(judge.function, pictures.fetch(range(N)))["pool"]
    for pictures in (drawn, real)
)
by_hand = frechet_distance(moments(ours), moments(theirs))
print(f"{judge.name}: {by_hand:.6f} by hand, {scores['fid']['value']:.6f} above")

# %% [markdown]
# ## Why the number of pictures stands beside it
#
# The Fréchet distance falls with the number of pictures; KID has no such bias, and goes
# below zero where two sets are equal but for chance. Both are taken between halves that
# share no caption, so that real against real says what can be reached.

# %%
from matplotlib import pyplot as plt

from dalle2_jax.evaluate.kernel import kid

half = N // 2
pairs = {
    "drawn, real": (ours[:half], theirs[half:]),
    "real, real": (theirs[:half], theirs[half:]),
}
counts = np.unique(np.geomspace(max(N // 10, 3), half, 5).astype(int))
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for name, (one, two) in pairs.items():
    fids = [frechet_distance(moments(one[:n]), moments(two[:n])) for n in counts]
    kids = [kid(one[:n], two[:n], subsets=20, size=n)[0] for n in counts]
    left.plot(counts, fids, "o-", label=name)
    right.plot(counts, kids, "o-", label=name)
left.set(xlabel="pictures on each side", ylabel="Fréchet distance", ylim=(0, None))
right.set(xlabel="pictures on each side", ylabel="KID")
left.legend()
plt.show()

# %% [markdown]
# ## Guidance
#
# The paper's figure 11: with more guidance FID falls at first, then rises. The
# quickstart's small model is at its best with little or none (`s = 1` to `1.5`); more
# makes its colours more vivid than real ones. `dalle2 study guidance` does this with
# more pictures and numbers.

# %%
from dataclasses import replace

from dalle2_jax.evaluate.clip_score import clip_score, image_features, text_features
from dalle2_jax.unclip import sampling_of

scales, usual = (
    ((1.0, 3.0) if FAST else (1.0, 2.0, 3.0, 5.0)),
    sampling_of(model.decoder),
)
z_text = text_features(model.clip, model.tokenizer, real.captions[:N])
for scale in scales:
    how = {"decoder": replace(usual, guidance=scale)}
    pictures = model.generate(real.captions[:N], how=how)
    features = moments(extract(judge.function, pictures)["pool"])
    distance = frechet_distance(features, moments(theirs))
    closeness = clip_score(image_features(model.clip, pictures), z_text)
    plt.plot(closeness, distance, "o")
    plt.annotate(f"  s = {scale:g}", (closeness, distance))
plt.margins(0.2)
plt.gca().set(xlabel="CLIP score", ylabel=f"Fréchet distance ({judge.name})")
plt.show()

# %% [markdown]
# ## The same pictures, judged by others
#
# The samples are PNG files; the real ones are written beside them. These commands score
# the two folders with torch-fidelity and clean-fid, which bring their own Inception.
# With `INCEPTION` ours equals theirs: `--resize legacy_tf` the first, `--resize clean`
# the second.

# %%
from PIL import Image

(WORK / "real").mkdir(exist_ok=True)
for number, picture in enumerate(real.fetch(range(N))):
    Image.fromarray(picture).save(WORK / "real" / f"{number:06d}.png")

weights = f" --feature-extractor-weights-path {INCEPTION}" if INCEPTION else ""
print(
    f"fidelity --input1 {WORK}/samples --input2 {WORK}/real --fid --kid --prc --cpu "
    f"--kid-subset-size {min(N, 1000)} --feature-extractor inception-v3-compat{weights}"
)
print(
    'python -c "from cleanfid import fid; print(fid.compute_fid('
    f"'{WORK}/samples', '{WORK}/real', mode='clean', num_workers=0, "
    "use_dataparallel=False, device='cpu'))\""
)
