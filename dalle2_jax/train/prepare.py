"""What a stage takes from the data before its first step: codes or moments of z_i.

Fitted once, when a run begins, to the first `codes_from` samples in the run's own
order, and kept among the parameters: a resumed run finds them in its checkpoint.
"""

import jax
import numpy as np

from dalle2_jax.prior.autoregressive import with_codes
from dalle2_jax.shard.mesh import replicated, to_devices
from dalle2_jax.train.losses import embed


def fit_tables(run, clip_cfg, frozen, params, batches, mesh):
    """Parameters of a prior with its codes, or its whitening, fitted.

    Args:
        run: Run of the stage "autoregressive", or "prior" with model.whiten.
        clip_cfg, frozen: CLIP's configuration and {"clip": parameters}.
        params: first parameters.
        batches: host batches (Captioned or Encoded) from the run's first sample on.
        mesh: the run's mesh.
    """

    def both(frozen, batch):
        caption, z_image = embed(clip_cfg, frozen, batch)
        return z_image, caption.pooled

    both = jax.jit(both, out_shardings=replicated(mesh))
    count = -(-run.codes_from // run.batch)
    found = [
        jax.device_get(both(frozen, to_devices(mesh, batch)))
        for batch, _ in zip(batches, range(count))
    ]
    z_image, z_text = (np.concatenate(z)[: run.codes_from] for z in zip(*found))
    if run.stage == "prior":
        std = np.maximum(z_image.std(axis=0), 1e-6)
        return {**params, "clip_mean": z_image.mean(axis=0), "clip_std": std}
    return with_codes(run.model, params, z_image, z_text)
