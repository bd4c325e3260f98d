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

from dalle2_jax.cascade import chosen_sampling, run_upsamplers
from dalle2_jax.data.picture_arrays import as_floats, check_pictures
from dalle2_jax.data.tokens import as_captions
from dalle2_jax.diffusion.process import q_sample
from dalle2_jax.diffusion.samplers import denoiser, initial_noise, inpainting, sample
from dalle2_jax.diffusion.schedule import Rows, resampled_rows, rows
from dalle2_jax.diffusion.walk import stage_keys, step_of
from dalle2_jax.errors import BadInput
from dalle2_jax.manipulate.latent import condition_of, embed, hear, imagine, to_size
from dalle2_jax.unclip import (
    UnCLIP,
    check_count,
    from_uint8,
    guided_decoder,
    sample_keys,
    to_uint8,
)

REWALKS = 4  # times that each level is walked; RePaint takes 10


def inpaint(
    model: UnCLIP,
    image: Any,
    known: Any,
    captions: Any = None,
    resample: int = REWALKS,
    seed: int = 0,
    ways: dict | None = None,
) -> jax.Array:
    """Pictures whose unknown pixels are drawn anew: [b, y, x, 3] in [-1, 1].

    A decoder that hears known pixels (DecoderConfig.inpaint) is given them, any other
    is led by RePaint. Known pixels come out as they went in.

    Args:
        model: UnCLIP.
        image: b pictures (`picture_arrays`).
        known: bool [b, y, x, 1], True = stays; one mask [y, x] serves all b.
        captions: b strings of the whole picture that is wanted, or one; z_i then comes
            from the prior. None: z_i is that of the picture as it is.
        resample: how often RePaint walks each level, 1 = once.
        seed: sample i depends on (seed, i) alone.
        ways: {stage: Sampling}.

    Raises:
        BadInput: the mask has another type or size, or leaves nothing to draw; not as
            many captions as pictures.
    """
    return _inpaint(model, as_floats(image), known, captions, resample, seed, ways)


def _inpaint(model, image, known, captions, resample, seed, ways):
    """`inpaint` of float32 [b, y, x, 3] in [-1, 1], such as it makes itself."""
    known = _mask(image, known)
    keys, ways = sample_keys(seed, 0, len(image)), ways or {}
    z_image = _wanted(model, image, captions, keys, ways)
    part = part_of(model, ways)
    small = to_size(image, part.cfg.size)
    kept = to_size(known.astype(jnp.float32), part.cfg.size) > 0.999
    condition = condition_of(model, z_image, captions)
    if part.cfg.inpaint:
        given = kept.astype(jnp.float32)
        condition = condition._replace(known=small * given, is_known=given)
    keys_here = stage_keys(keys, 200)
    x_T = initial_noise(keys_here, small.shape[1:])
    table = resampled_rows(part.rows(), check_count(resample, "resample"))
    params, empty = model.decoder.params, hear(model, [""])
    walked = (params, condition, x_T, keys_here, empty, table)
    drawn = walk_from(*walked, part=part, given=(small, kept))
    large = to_size(run_upsamplers(model, drawn, keys, ways), image.shape[1])
    return jnp.where(known, image, large)


def _wanted(model, image, captions, keys, ways):
    """z_i of the captions that are wanted, or of the pictures as they are."""
    if not captions:
        return embed(model, image)
    return imagine(model, as_captions(captions, len(image)), keys, ways)


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
    how = chosen_sampling(model.decoder, ways, "decoder")
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
        image: one picture (`picture_arrays`).
        steps: list of (known, as in `inpaint`; caption or None).
        model, resample, seed, ways: as in `inpaint`.

    Yields:
        float32 [1, y, x, 3] after every edit.
    """
    image = as_floats(image, 1)
    for number, (known, caption) in enumerate(steps):
        again = (resample, seed + number, ways)
        image = _inpaint(model, image, known, caption, *again)
        yield image


def outpaint_canvas(image: Any, margin: float) -> tuple[Any, jax.Array]:
    """A picture in the middle of a larger one: (image, known) for `inpaint`.

    image: b pictures (`picture_arrays`); margin: pixels on every side, as a share of y,
    above 0 and at most 2. The canvas is scaled back to [b, y, x, 3] and is uint8 where
    the pictures were; what lies outside repeats the border.

    Raises:
        BadInput: no pictures, or a margin out of its range.
    """
    if not 0 < margin <= 2:
        raise BadInput(f"the margin is {margin} of the picture; take 0 to 2.")
    given = check_pictures(image)
    image = as_floats(given)
    side = image.shape[1]
    pad = max(round(side * margin), 1)
    wide = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    whole = jnp.pad(image, wide, mode="edge")
    known = jnp.pad(jnp.ones((*image.shape[:3], 1)), wide)
    canvas, known = to_size(whole, side), to_size(known, side) > 0.999
    return (to_uint8(canvas) if given.dtype == np.uint8 else canvas), known


def image_to_image(
    model: UnCLIP,
    image: Any,
    strength: float,
    captions: Any = None,
    seed: int = 0,
    ways: dict | None = None,
) -> jax.Array:
    """Pictures redrawn from a noised version (SDEdit): [b, y, x, 3] in [-1, 1].

    Args:
        image: b pictures (`picture_arrays`).
        strength: the share of the walk that is redone, in (0, 1]; 1 keeps nothing but
            z_i.
        model, captions, seed, ways: as in `inpaint`.

    Raises:
        BadInput: strength is out of its range; not as many captions as pictures.
    """
    if not 0 < strength <= 1:
        raise BadInput(f"strength is {strength}; take a number above 0, at most 1.")
    image, ways = as_floats(image), ways or {}
    keys = sample_keys(seed, 0, len(image))
    z_image = _wanted(model, image, captions, keys, ways)
    part = part_of(model, ways)
    table = part.rows()
    left = max(round(len(table.t) * strength), 1)
    table = Rows(*(column[-left:] for column in table))
    small, keys_here = to_size(image, part.cfg.size), stage_keys(keys, 200)
    eps = initial_noise(keys_here, small.shape[1:])
    x_t = q_sample(small, eps, np.float32(table.ab[0]))
    params, condition = model.decoder.params, condition_of(model, z_image, captions)
    walked = (params, condition, x_t, keys_here, hear(model, [""]), table)
    return run_upsamplers(model, walk_from(*walked, part=part), keys, ways)


def mask_of(pixels):
    """uint8 [y, x, 3] of a mask -> known bool [1, y, x, 1]; white is drawn anew."""
    return jnp.asarray(from_uint8(pixels).mean(-1) < 0)[None, :, :, None]


def _mask(image, known):
    """known as bool [b, y, x, 1] for image [b, y, x, 3]."""
    known = np.asarray(known)
    if known.dtype != bool:
        raise BadInput(
            f"the mask is {known.dtype}; it is bool, True where the picture stays "
            "(`mask_of` makes it from a picture that is white where it is drawn anew)."
        )
    flat = known[..., None] if known.ndim == 2 or known.shape[-1:] != (1,) else known
    flat = flat[None] if flat.ndim == 3 else flat
    if flat.ndim != 4 or flat.shape[1:] != (*image.shape[1:3], 1):
        raise BadInput(
            f"the mask is {list(known.shape)}, the picture {image.shape[1]} x "
            f"{image.shape[2]}; make them equally large, [b, y, x, 1] or [y, x]."
        )
    if len(flat) not in (1, len(image)):
        raise BadInput(f"{len(image)} pictures need as many masks, not {len(flat)}.")
    known = jnp.asarray(np.broadcast_to(flat, (*image.shape[:3], 1)))
    if bool(known.all()):
        raise BadInput("the mask has no white part; paint white what is to change.")
    return known
