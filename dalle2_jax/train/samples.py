"""Sample grids during training: the batch's own pictures above what the EMA makes."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dalle2_jax.shard.processes import is_first, whole
from dalle2_jax.train.losses import embed, resize
from dalle2_jax.unclip import (
    decoder_condition,
    sample_decoder,
    sample_keys,
    sample_upsampler,
    to_uint8,
)

SHOWN = 16


def sample_hook(run, clip_cfg, frozen, workdir, log):
    """A hook that writes samples/<step>.png and a TensorBoard picture.

    Decoders are given z_i and the caption of the batch's first pictures, upsamplers
    their small versions; other stages make no pictures and get no grid.
    """
    makers = {"decoder": _decode, "upsampler": _upsample, "upsampler_2": _upsample}
    make = makers.get(run.stage)
    if make is None:
        return lambda moment: None
    if is_first():
        (workdir / "samples").mkdir(exist_ok=True)

    def call(moment):
        batch, ema, lent = whole((moment.batch, moment.state.ema, frozen))
        if not is_first():
            return
        batch = jax.tree.map(lambda x: jnp.asarray(x[:SHOWN]), batch)
        made = make(run, clip_cfg, lent, ema, batch)
        real = to_uint8(resize(batch.image, made.shape[1]))
        sheet = np.concatenate([_row(real), _row(made)])
        Image.fromarray(sheet).save(workdir / "samples" / f"{moment.step:08d}.png")
        log.picture(moment.step, "samples", sheet)

    return call


def _decode(run, clip_cfg, frozen, params, batch):
    caption, z_image = embed(clip_cfg, frozen, batch)
    condition = decoder_condition(caption, z_image, clip_cfg.unit)
    keys = sample_keys(run.seed, 0, len(z_image))
    static = {"cfg": run.model, "noise": run.noise, "how": run.sampling}
    return to_uint8(sample_decoder(params, condition, keys, **static))


def _upsample(run, clip_cfg, frozen, params, batch):
    low = resize(batch.image, run.model.size // run.model.factor)
    keys = sample_keys(run.seed, 0, len(low))
    static = {"cfg": run.model, "noise": run.noise, "how": run.sampling}
    return to_uint8(sample_upsampler(params, low, keys, **static))


def _row(pictures):
    """uint8 [n, y, x, 3] -> [y, n x, 3]."""
    return np.concatenate(list(pictures), axis=1)
