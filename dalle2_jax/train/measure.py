"""What a finished prior is told of itself: how large its predictions of eps are.

Analytic-DPM (Bao et al. 2022), with which unCLIP samples its prior (Table 3), takes
the reverse variances from the mean square of eps over the data, measured once.
"""

from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.diffusion.objective import noised, row_at
from dalle2_jax.diffusion.process import eps_of, to_x_0
from dalle2_jax.diffusion.walk import seed_key
from dalle2_jax.prior.diffusion import Prior, to_scaled
from dalle2_jax.shard.mesh import replicated, to_devices
from dalle2_jax.train.inputs import open_batches
from dalle2_jax.train.losses import embed
from dalle2_jax.unclip import prior_text

POINTS = 33  # steps t at which it is measured


def with_squares(run, config, work, params):
    """A prior's config.json with `eps_square`; other stages' as it is.

    Args:
        run: Run.
        config: dict.
        work: what the run has open: source, tokenizer, mesh, clip_cfg, frozen.
        params: of the finished prior.
    """
    if run.stage != "prior":
        return config
    with closing(open_batches(run, work.source, work.tokenizer, 0)) as batches:
        batch = to_devices(work.mesh, next(batches))
    whole = replicated(work.mesh)
    squares = jax.jit(mean_squares, static_argnums=(0, 1), out_shardings=whole)
    found = squares(run, work.clip_cfg, params, work.frozen, batch)
    kept = [round(float(x), 6) for x in np.asarray(found)]
    return config | {"eps_square": kept}


def mean_squares(run, clip_cfg, params, frozen, batch):
    """Mean of eps^2 as the prior predicts it, at POINTS steps spread evenly: [POINTS].

    Arguments as of a loss; run and clip_cfg are static.
    """
    cfg, noise = run.model, run.noise
    caption, z_image = embed(clip_cfg, frozen, batch)
    z_0 = to_scaled(cfg, params, z_image)
    text = prior_text(caption, cfg.null)

    def at(t):
        key = jax.random.fold_in(seed_key(run.seed), t)
        eps = jax.random.normal(key, z_0.shape)
        times = jnp.full(len(z_0), t)
        z_t, level = noised(z_0, eps, times, noise), row_at(times, noise, 2).now
        output = Prior(cfg).apply({"params": params}, z_t, times, text)
        found = eps_of(z_t, to_x_0(output, z_t, level, noise.predicts), level)
        return jnp.mean(found**2)

    steps = np.linspace(0, noise.steps - 1, POINTS).round().astype(np.int32)
    return jax.lax.map(at, jnp.asarray(steps))
