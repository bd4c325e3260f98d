"""Parts of a picture made anew: inpainting, outpainting, edits in a row, SDEdit.

The paper's section 3 stops short of it; these are what GLIDE (Nichol et al. 2021, §2.5)
does with a network that hears the known pixels, RePaint (Lugmayr et al. 2022) without
one, and SDEdit (Meng et al. 2021) with a whole picture.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.diffusion.process import q_sample
from dalle2_jax.diffusion.samplers import denoiser, initial_noise, inpainting, sample
from dalle2_jax.diffusion.schedule import Rows, resampled_rows, rows
from dalle2_jax.diffusion.walk import stage_keys, step_of
from dalle2_jax.errors import BadInput
from dalle2_jax.manipulate.latent import condition_of, hear, imagine, see, to_size
from dalle2_jax.unclip import (
    from_uint8,
    guided_decoder,
    sample_keys,
    sampling_of,
    upsample,
)

REWALKS = 4  # times that each level is walked; RePaint takes 10


def inpaint(model, image, known, captions=None, resample=REWALKS, seed=0, ways=None):
    """Pictures whose unknown pixels are drawn anew: [b, y, x, 3] in [-1, 1].

    A decoder that hears known pixels (DecoderConfig.inpaint) is given them, any other
    is led by RePaint. Known pixels come out as they went in.

    Args:
        model: UnCLIP.
        image: float32 [b, y, x, 3] in [-1, 1].
        known: bool [b, y, x, 1], True = stays.
        captions: b strings of the whole picture that is wanted; z_i then comes from the
            prior. None: z_i is that of the picture as it is.
        resample: how often RePaint walks each level, 1 = once.
        seed: sample i depends on (seed, i) alone.
        ways: {stage: Sampling}.

    Raises:
        BadInput: the mask has another size, or leaves nothing to draw.
    """
    _check_mask(image, known)
    keys, ways = sample_keys(seed, 0, len(image)), ways or {}
    z_image = imagine(model, captions, keys, ways) if captions else see(model, image)
    part = part_of(model, ways)
    small = to_size(image, part.cfg.size)
    kept = to_size(known.astype(jnp.float32), part.cfg.size) > 0.999
    condition = condition_of(model, z_image, captions)
    if part.cfg.inpaint:
        given = kept.astype(jnp.float32)
        condition = condition._replace(known=small * given, is_known=given)
    keys_here = stage_keys(keys, 200)
    x_T = initial_noise(keys_here, small.shape[1:])
    table = resampled_rows(part.rows(), resample)
    params, empty = model.decoder.params, hear(model, [""])
    walked = (params, condition, x_T, keys_here, empty, table)
    drawn = walk_from(*walked, part=part, given=(small, kept))
    large = to_size(upsample(model, drawn, keys, ways), image.shape[1])
    return jnp.where(known, image, large)


class Part(NamedTuple):
    """The decoder's cfg and noise, and the Sampling that it is used with; static."""

    cfg: Any
    noise: Any
    how: Any

    def rows(self):
        """The table of steps."""
        return rows(self.noise.schedule, self.noise.steps, self.how.steps)


def part_of(model, ways):
    """The Part of a model's decoder; ways: {stage: Sampling}."""
    how = ways.get("decoder") or sampling_of(model.decoder)
    return Part(model.decoder.cfg, model.decoder.noise, how)


@functools.partial(jax.jit, static_argnames="part")
def walk_from(params, condition, x_t, keys, empty, table, part, given=None):
    """The decoder's walk along any table: [b, size, size, 3] in [-1, 1].

    Args:
        params, condition, keys: as in `sample_decoder`.
        x_t: float32 [b, size, size, 3], at the noise level of the table's first row.
        empty: Caption [1, ...] of the empty caption.
        table: Rows.
        part: Part, static.
        given: (image [b, size, size, 3], known bool [b, size, size, 1]) or None.
    """
    model = guided_decoder(params, condition, *part, empty)
    step = step_of(part.how)
    step = step if given is None else inpainting(step, *given)
    denoise = denoiser(model, part.noise, part.how.clip or None, part.how.threshold)
    return jnp.clip(sample(step, denoise, x_t, table, keys), -1, 1)


def edits(model, image, steps, resample=REWALKS, seed=0, ways=None):
    """Several masked captions in a row, each on the last one's result.

    Args:
        image: float32 [1, y, x, 3] in [-1, 1].
        steps: list of (known bool [1, y, x, 1], caption or None).
        model, resample, seed, ways: as in `inpaint`.

    Yields:
        float32 [1, y, x, 3] after every edit.
    """
    for number, (known, caption) in enumerate(steps):
        again = (resample, seed + number, ways)
        image = inpaint(model, image, known, [caption] if caption else None, *again)
        yield image


def outpaint_canvas(image, margin):
    """A picture in the middle of a larger one: (image, known) for `inpaint`.

    image float32 [b, y, x, 3]; margin: pixels on every side, as a share of y. The
    canvas is scaled back to [b, y, x, 3]; what lies outside repeats the border.
    """
    if not 0 < margin <= 2:
        raise BadInput(f"the margin is {margin} of the picture; take 0 to 2.")
    side = image.shape[1]
    pad = max(round(side * margin), 1)
    wide = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    whole = jnp.pad(image, wide, mode="edge")
    known = jnp.pad(jnp.ones((*image.shape[:3], 1)), wide)
    return to_size(whole, side), to_size(known, side) > 0.999


def image_to_image(model, image, strength, captions=None, seed=0, ways=None):
    """Pictures redrawn from a noised version (SDEdit): [b, y, x, 3] in [-1, 1].

    Args:
        image: float32 [b, y, x, 3] in [-1, 1].
        strength: the share of the walk that is redone, in (0, 1]; 1 keeps nothing but
            z_i.
        model, captions, seed, ways: as in `inpaint`.

    Raises:
        BadInput: strength is out of its range.
    """
    if not 0 < strength <= 1:
        raise BadInput(f"strength is {strength}; take a number above 0, at most 1.")
    keys, ways = sample_keys(seed, 0, len(image)), ways or {}
    z_image = imagine(model, captions, keys, ways) if captions else see(model, image)
    part = part_of(model, ways)
    table = part.rows()
    left = max(round(len(table.t) * strength), 1)
    table = Rows(*(column[-left:] for column in table))
    small, keys_here = to_size(image, part.cfg.size), stage_keys(keys, 200)
    eps = initial_noise(keys_here, small.shape[1:])
    x_t = q_sample(small, eps, np.float32(table.ab[0]))
    params, condition = model.decoder.params, condition_of(model, z_image, captions)
    walked = (params, condition, x_t, keys_here, hear(model, [""]), table)
    return upsample(model, walk_from(*walked, part=part), keys, ways)


def mask_of(pixels):
    """uint8 [y, x, 3] of a mask -> known bool [1, y, x, 1]; white is drawn anew."""
    return jnp.asarray(from_uint8(pixels).mean(-1) < 0)[None, :, :, None]


def _check_mask(image, known):
    if known.shape != (*image.shape[:3], 1):
        raise BadInput(
            f"the mask is {known.shape[1]} x {known.shape[2]}, the picture "
            f"{image.shape[1]} x {image.shape[2]}; make them equally large."
        )
    if bool(known.all()):
        raise BadInput("the mask has no white part; paint white what is to change.")
