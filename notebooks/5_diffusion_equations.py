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
# # The equations of diffusion
#
# Prior, decoder and upsamplers are diffusion models. This is all the mathematics that
# they share, a figure for each equation: `dalle2_jax/diffusion/` has each once, and the
# cells call it there. No trained model is needed.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt

from dalle2_jax.cli.notebook import fast, show

STEPS = 1000  # of the full chain
t = np.arange(STEPS)
plt.rcParams.update({"figure.figsize": (7, 3), "axes.spines.top": False})
plt.rcParams.update({"axes.spines.right": False, "legend.frameon": False})

# %% [markdown]
# ## Schedules
#
# A chain of small Gaussian steps $q(x_t \mid x_{t-1}) = \mathcal N(\sqrt{1-\beta_t}\,
# x_{t-1}, \beta_t)$ leaves $\bar\alpha_t = \prod_s (1 - \beta_s)$ of the signal's
# variance. The paper's decoder has the cosine schedule, its upsamplers the linear one.

# %%
from dalle2_jax.diffusion.schedule import alpha_bars, betas

figure, (left, right) = plt.subplots(1, 2, layout="constrained")
for kind in ("cosine", "linear"):
    ab = alpha_bars(betas(kind, STEPS))
    left.plot(t, ab, label=kind)
    right.plot(t, np.log(ab / (1 - ab)), label=kind)
left.set(xlabel="t", ylabel=r"$\bar\alpha_t$")
right.set(xlabel="t", ylabel="log signal to noise")
left.legend()
plt.show()

# %% [markdown]
# ## The forward process
#
# DDPM equation 4: any $x_t$ in one go,
#
# $$q(x_t \mid x_0):\quad x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,
# \epsilon$$

# %%
from dalle2_jax.data.render_shapes import render
from dalle2_jax.data.shapes import Spec, Thing
from dalle2_jax.diffusion.process import q_sample
from dalle2_jax.unclip import from_uint8

rng = np.random.default_rng(0)
spec = Spec("simple", (Thing("ring", "red", "large", "centre"),), "white")
x_0 = from_uint8(render(spec, 64, rng))
eps = rng.normal(size=x_0.shape).astype("f")
ab = alpha_bars(betas("cosine", STEPS))
times = [0, 100, 250, 400, 550, 700, 850, 999]
noised = np.stack([q_sample(x_0, eps, ab[i]) for i in times])
show(np.clip(noised, -1, 1), [f"t = {i}" for i in times])

# %% [markdown]
# ## The posterior
#
# DDPM equation 7: once $x_0$ is known, one step back is Gaussian too. Here in one
# dimension, against a simulation: of many chains from $x_0 = 1$, those that come by
# $x_t \approx 0.2$.

# %%
from dalle2_jax.diffusion.process import posterior_mean
from dalle2_jax.diffusion.schedule import rows

table = rows("cosine", STEPS, 10)  # ten steps, noisiest first
row = type(table)(*(column[6] for column in table))
here, next_one = 0.2, rng.normal(size=2_000_000)
next_one = q_sample(1.0, next_one, row.ab_next)
share = row.ab / row.ab_next
now = q_sample(next_one, rng.normal(size=next_one.shape), share)
x = np.linspace(-1.5, 2.5, 200)
mean = posterior_mean(1.0, here, row)
density = np.exp(-((x - mean) ** 2) / (2 * row.variance))
plt.hist(next_one[np.abs(now - here) < 0.01], 60, density=True, alpha=0.4)
plt.plot(x, density / np.sqrt(2 * np.pi * row.variance))
plt.gca().set(xlabel="$x_{t-1}$", title=rf"$q(x_{{t-1}} \mid x_t = {here}, x_0 = 1)$")
plt.show()

# %% [markdown]
# ## What the network predicts
#
# $\epsilon$, $x_0$, or $v = \sqrt{\bar\alpha_t}\,\epsilon - \sqrt{1-\bar\alpha_t}\,x_0$
# (Salimans and Ho 2022): $v$ is like the noise where there is little of it and like the
# picture where there is much.

# %%
from dalle2_jax.diffusion.process import target

kinds, times = ("eps", "x0", "v"), (100, 400, 700, 950)
targets = [target(x_0, eps, ab[i], kind) for kind in kinds for i in times]
names = [f"{kind}, t = {i}" for kind in kinds for i in times]
show(np.clip(np.stack(targets) / 2, -1, 1), names, columns=len(times))

# %% [markdown]
# Every one of them gives $x_0$ back. What differs is by how much an error of the
# network is multiplied on the way: beyond measure for $\epsilon$ where all is noise.

# %%
from dalle2_jax.diffusion.process import to_x_0

x_t = q_sample(0.0, 1.0, ab)
for kind in kinds:
    right_one = target(0.0, 1.0, ab, kind)
    error = to_x_0(right_one + 0.01, x_t, ab, kind) / 0.01
    plt.semilogy(t, np.abs(np.broadcast_to(error, t.shape)), label=kind)
plt.gca().set(
    xlabel="t", ylabel="error of $x_0$ / error of the output", ylim=(1e-2, 1e3)
)
plt.legend()
plt.show()

# %% [markdown]
# ## Learned variance
#
# IDDPM equation 15: the network's second half $v \in [-1, 1]$ goes from the posterior's
# variance to $\beta$, on a logarithmic scale. It matters where the two differ: at the
# last steps, and when few steps are taken.

# %%
from dalle2_jax.diffusion.process import range_log_variance

figure, panels = plt.subplots(1, 2, layout="constrained", sharey=True)
for panel, count in zip(panels, (STEPS, 25)):
    table = rows("cosine", STEPS, count)
    for v in (-1, -0.5, 0, 0.5, 1):
        curve = np.exp(range_log_variance(v, table))
        panel.loglog(table.t + 1, curve, label=f"v = {v}")
    panel.set(xlabel="t + 1", title=f"{count} steps")
panels[0].set_ylabel("variance of a step")
panels[1].legend()
plt.show()

# %% [markdown]
# ## Samplers
#
# A world in which the best denoiser is known: points around three centres. Its
# $\hat x_0 = E[x_0 \mid x_t]$ is a weighted mean, and stands for a perfectly trained
# network that predicts $x_0$. `weights` are those of the centres: the condition.

# %%
CENTRES = 1.5 * np.array([[0.0, 1.0], [-0.87, -0.5], [0.87, -0.5]], "f")
SPREAD = 0.2  # standard deviation around a centre
AB = jnp.asarray(ab, jnp.float32)


def network(x, t, weights):
    """E[x_0 | x_t] for x [b, 2], t [b], weights [b, 3]."""
    kept = AB[t][:, None, None]
    variance = kept * SPREAD**2 + 1 - kept
    away = x[:, None] - jnp.sqrt(kept) * CENTRES  # [b, 3, 2]
    log_share = -(away**2).sum(-1) / (2 * variance[..., 0]) + jnp.log(weights)
    each = CENTRES + jnp.sqrt(kept) * SPREAD**2 / variance * away
    return (jax.nn.softmax(log_share)[..., None] * each).sum(1)


def anywhere(x, t):
    """All centres are equally likely."""
    return network(x, t, jnp.ones((len(x), 3)) / 3)


# %% [markdown]
# A sampler is a step, walked over the rows of a table. DDPM draws anew at each step;
# DDIM ($\eta = 0$) draws nothing after $x_T$; DPM-Solver++ looks at the step before,
# too. Fifteen steps each:

# %%
from dalle2_jax.diffusion.samplers import (
    ddim,
    ddpm,
    denoiser,
    dpm_solver,
    initial_noise,
    sample,
)
from dalle2_jax.diffusion.schedule import Noise
from dalle2_jax.diffusion.walk import sample_keys

N = 500 if fast() else 2000
noise, keys = Noise(predicts="x0"), sample_keys(0, 0, N)
denoise, x_T = denoiser(anywhere, noise, None), initial_noise(keys, (2,))
table = rows("cosine", STEPS, "logsnr15")
drawn = {
    "DDPM": sample(ddpm, denoise, x_T, table, keys),
    r"DDIM, $\eta = 0$": sample(ddim(0.0), denoise, x_T, table, keys),
    "DPM-Solver++ (2M)": dpm_solver(denoise, x_T, table),
}

# %%
figure, panels = plt.subplots(1, 3, figsize=(9, 3), sharex=True, sharey=True)
for panel, (name, points) in zip(panels, drawn.items()):
    panel.scatter(*points.T, s=2, alpha=0.4)
    panel.plot(*CENTRES.T, "k+")
    panel.set(title=name, aspect="equal")
plt.show()

# %% [markdown]
# **Paths.** DDIM turns each $x_T$ into one $x_0$ along a smooth path, DDPM wanders.

# %%
figure, panels = plt.subplots(1, 2, figsize=(7, 3.4), sharex=True, sharey=True)
table = rows("cosine", STEPS, 50)
for panel, (name, step) in zip(panels, {"DDPM": ddpm, "DDIM": ddim(0.0)}.items()):
    path, one_step = [x_T[:12]], jax.jit(lambda *given, s=step: s(denoise, *given))
    for i in range(len(table.t)):
        row = type(table)(*(column[i : i + 1] for column in table))
        fresh = rng.normal(size=(12, 2)).astype("f")
        path.append(one_step(path[-1], row, fresh))
    panel.plot(*np.stack(path).transpose(2, 0, 1), lw=0.8)
    panel.set(title=name, aspect="equal")
plt.show()

# %% [markdown]
# ## DDIM inversion
#
# The same step over the table turned round leads from $x_0$ to $x_T$: the second half
# of unCLIP's latent $(z_i, x_T)$. There and back again, the error falls with the number
# of steps.

# %%
from dalle2_jax.diffusion.samplers import ddim_inverse
from dalle2_jax.diffusion.schedule import inverse_rows

points = np.repeat(CENTRES, 100, 0) + SPREAD * rng.normal(size=(300, 2)).astype("f")
own, counts, errors = sample_keys(1, 0, 300), (10, 30, 100, 300, 1000), []
for count in counts:
    table = rows("cosine", STEPS, count)
    there = sample(ddim_inverse, denoise, points, inverse_rows(table), own)
    back = sample(ddim(0.0), denoise, there, table, own)
    errors.append(float(jnp.abs(back - points).mean()))
plt.loglog(counts, errors, "o-")
plt.gca().set(xlabel="steps each way", ylabel=r"mean $|x_0 - \hat x_0|$")
plt.show()

# %% [markdown]
# ## Fewer steps
#
# A model trained with 1000 steps is sampled with fewer by keeping some of them (IDDPM
# section 4). Another table, the same sampler:

# %%
from dalle2_jax.diffusion.schedule import kept_steps

specs = ("27", "ddim25", "10,10,3,2,2", "fast27")
for place, spec in enumerate(specs):
    kept = kept_steps(STEPS, spec)
    plt.plot(kept, np.full(len(kept), place), "|", ms=12)
plt.gca().set(yticks=range(len(specs)), yticklabels=specs, xlabel="t", ylim=(-0.5, 3.5))
plt.show()

# %% [markdown]
# How many are enough? The mean square distance of the samples to their nearest centre
# should be $2 \cdot 0.2^2 = 0.08$.

# %%
SAMPLERS = {
    "DDPM": lambda table: sample(ddpm, denoise, x_T, table, keys),
    "DDIM": lambda table: sample(ddim(0.0), denoise, x_T, table, keys),
    "DPM-Solver++": lambda table: dpm_solver(denoise, x_T, table),
}


def spread(points):
    """The mean square distance to the nearest centre."""
    return float((((points[:, None] - CENTRES) ** 2).sum(-1)).min(1).mean())


counts = (5, 20) if fast() else (5, 8, 12, 20, 40, 80)
for name, draw in SAMPLERS.items():
    tables = [rows("cosine", STEPS, f"logsnr{count}") for count in counts]
    plt.plot(counts, [spread(draw(table)) for table in tables], "o-", label=name)
plt.axhline(2 * SPREAD**2, color="k", lw=0.8, ls=":")
plt.xscale("log")
plt.xticks(counts, counts, minor=False)
plt.minorticks_off()
plt.gca().set(xlabel="steps", ylabel="mean square distance", ylim=(0, None))
plt.legend()
plt.show()

# %% [markdown]
# ## Guidance
#
# Classifier-free guidance wraps the network:
#
# $$\hat x_0 = x_{0,\emptyset} + s\,(x_{0,c} - x_{0,\emptyset})$$
#
# The condition here is the left centre, most of the time. More guidance means samples
# farther from the others and closer to each other: fidelity for diversity.

# %%
from dalle2_jax.diffusion.guidance import guided

left_one = jnp.tile(jnp.asarray([0.05, 0.9, 0.05]), (N, 1))
any_one = jnp.ones((N, 3)) / 3
table = rows("cosine", STEPS, 50)
figure, panels = plt.subplots(1, 4, figsize=(10, 3), sharex=True, sharey=True)
for panel, scale in zip(panels, (0.0, 1.0, 2.0, 5.0)):
    model = guided(network, left_one, any_one, scale)
    points = sample(ddim(0.0), denoiser(model, noise, None), x_T, table, keys)
    panel.scatter(*points.T, s=2, alpha=0.4)
    panel.plot(*CENTRES.T, "k+")
    panel.set(title=f"s = {scale:g}", aspect="equal")
plt.show()

# %% [markdown]
# **Thresholding.** Guidance pushes $\hat x_0$ out of the range of pictures. It is cut
# back at each step, either at a fixed bound, or (Imagen, section 2.3) at a quantile of
# its own values, and then scaled.

# %%
from dalle2_jax.diffusion.samplers import bounded

pushed = 3 * x_0[None]
cut, scaled = bounded(pushed, 1.0), bounded(pushed, 1.0, 0.995)
show(np.clip(np.concatenate([x_0[None], cut, scaled]), -1, 1), ["x_0", "cut", "scaled"])
