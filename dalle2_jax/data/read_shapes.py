"""Reads pictures of the generated worlds back by analysis-by-synthesis.

Every template of a bank (shape x radius x place) is laid over the picture; the one that
with its best colour explains most of the difference to the background is what is read.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from dalle2_jax.data.render_shapes import coverage
from dalle2_jax.data.shapes import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    Spec,
    Thing,
    world_of,
)
from dalle2_jax.errors import BadInput

SIDE = 32  # pixels at which pictures are compared
BLUR = 0.9  # of these pixels, for pictures and templates alike
CONTRAST = 28.0  # of 255 (root mean square over channels), to count as an object
SHARE = 0.35  # of the picture's difference to its background that must be explained
PAIR_GAIN = 1.06  # how much more than one object two must explain
CHUNK = 64  # pictures in one matrix product


class _Bank(NamedTuple):
    """Templates: pixels float32 [t, SIDE * SIDE] of norm 1, and what each one is."""

    pixels: np.ndarray
    norm: np.ndarray  # [t]
    shape: np.ndarray  # [t] index into SHAPES
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray


@lru_cache(maxsize=1)
def _blur_matrix():
    """Gaussian blur of one axis with the edge repeated: [SIDE, SIDE]."""
    reach = np.arange(-4, 5)
    weights = np.exp(-0.5 * (reach / BLUR) ** 2)
    matrix = np.zeros((SIDE, SIDE), np.float32)
    for pixel in range(SIDE):
        np.add.at(matrix[pixel], np.clip(pixel + reach, 0, SIDE - 1), weights)
    return matrix / weights.sum()


def _blurred(images):
    """images float32 [..., SIDE, SIDE] -> the same, blurred along both axes."""
    return _blur_matrix() @ images @ _blur_matrix().T


def _bank(centres, radii):
    """All shapes at all radii at all centres."""
    made = [
        (shape, x, y, radius)
        for shape in range(len(SHAPES))
        for radius in radii
        for x, y in centres
    ]
    masks = np.stack([coverage(SHAPES[s], x, y, r, SIDE) for s, x, y, r in made])
    flat = _blurred(masks).reshape(len(made), -1)
    norm = np.linalg.norm(flat, axis=-1)
    return _Bank(flat / norm[:, None], norm, *map(np.array, zip(*made)))


def _window(low_x, high_x, low_y, high_y, step):
    xs = np.arange(low_x, high_x + 1e-6, step)
    ys = np.arange(low_y, high_y + 1e-6, step)
    return [(x, y) for y in ys for x in xs]


@lru_cache(maxsize=1)
def _single_bank():
    """One object, anywhere that has a name and between, small to large."""
    radii = (0.17, 0.19, 0.21, 0.23, 0.26, 0.29, 0.32, 0.35)
    centres = _window(0.27, 0.73, 0.27, 0.73, 0.0385)
    near = [(x, y) for x, y in centres if min(abs(x - 0.5), abs(y - 0.5)) < 0.12]
    return _bank(near, radii)


@lru_cache(maxsize=1)
def _pair_banks():
    """Relation -> banks of the first and the second object."""
    radii = (0.16, 0.18, 0.2, 0.22, 0.24)
    low, high = (0.16, 0.34), (0.66, 0.84)
    across, step = (0.42, 0.58), 0.032
    return {
        "left of": [
            _bank(_window(*side, *across, step), radii) for side in (low, high)
        ],
        "above": [_bank(_window(*across, *side, step), radii) for side in (low, high)],
    }


class _Fit(NamedTuple):
    """The best template of a bank for each picture."""

    gain: np.ndarray  # [n] squared difference that it explains
    overlap: np.ndarray  # [n, 3] inner product with the template, each channel
    colour: np.ndarray  # [n, 3] added to the background
    template: np.ndarray  # [n] index into the bank


def _fit(difference, bank):
    """difference: float32 [n, 3, SIDE * SIDE], picture minus background."""
    n = len(difference)
    overlap = difference.reshape(n * 3, -1) @ bank.pixels.T
    overlap = overlap.reshape(n, 3, -1)
    gains = np.einsum("nct,nct->nt", overlap, overlap)
    best = gains.argmax(-1)
    rows = np.arange(n)
    overlap = overlap[rows, :, best]
    return _Fit(gains[rows, best], overlap, overlap / bank.norm[best, None], best)


def _joint_gain(fits, banks):
    """What two templates explain together; where they overlap counts once. [n]"""
    one, two = (bank.pixels[fit.template] for fit, bank in zip(fits, banks))
    common = np.einsum("np,np->n", one, two)
    cross = (fits[0].overlap * fits[1].overlap).sum(-1)
    gain = fits[0].gain + fits[1].gain - 2.0 * common * cross
    return gain / (1.0 - np.minimum(common, 0.9) ** 2)


def _small(images):
    """uint8 [n, y, x, 3] -> float32 [n, SIDE, SIDE, 3], antialiased."""
    if images.shape[1:3] == (2 * SIDE, 2 * SIDE):
        blocks = images.reshape(len(images), SIDE, 2, SIDE, 2, 3)
        return blocks.mean((2, 4), dtype=np.float32)
    resized = [
        Image.fromarray(i).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        for i in images
    ]
    return np.stack([np.asarray(i, np.float32) for i in resized])


def _ground(small):
    """The background's colour, the median of the border: [n, 3]."""
    top, bottom = small[:, :2], small[:, -2:]
    left, right = small[:, 2:-2, :2], small[:, 2:-2, -2:]
    parts = [p.reshape(len(small), -1, 3) for p in (top, bottom, left, right)]
    return np.median(np.concatenate(parts, 1), axis=1)


def _lab(colours):
    """sRGB [..., 3] in 0..255 -> CIE L*a*b* (D65)."""
    share = np.clip(np.asarray(colours, np.float64) / 255.0, 0.0, 1.0)
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_xyz = [
        [0.4124, 0.3576, 0.1805],
        [0.2126, 0.7152, 0.0722],
        [0.0193, 0.1192, 0.9505],
    ]
    xyz = linear @ np.array(to_xyz).T / (0.9505, 1.0, 1.089)
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16.0 / 116.0)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], -1)


def _colour_names(colours):
    """Nearest named colour; hue counts more than lightness. A grey one has no name."""
    weights = np.array([0.5, 1.0, 1.0])
    seen, named = _lab(colours) * weights, _lab(list(COLOURS.values())) * weights
    nearest = ((seen[:, None] - named) ** 2).sum(-1).argmin(-1)
    chroma = np.linalg.norm(seen[:, 1:], axis=-1)
    names = list(COLOURS)
    return [names[i] if c > 12.0 else "" for i, c in zip(nearest, chroma)]


def _ground_names(grounds):
    """Nearest named background, empty for one that is far from all."""
    levels = np.array(list(BACKGROUNDS.values()), np.float32)
    far = np.abs(grounds[:, None, :] - levels[None, :, None]).max(-1)
    names = list(BACKGROUNDS)
    return [names[row.argmin()] if row.min() < 55.0 else "" for row in far]


def _visible(fit):
    return np.sqrt((fit.colour**2).mean(-1)) > CONTRAST


def _size_name(world, radius):
    """The named radius that is nearest in ratio."""
    return min(world.radii, key=lambda name: abs(np.log(world.radii[name] / radius)))


def _place_name(world, x, y):
    def distance(name):
        centre = world.places[name]
        return (centre[0] - x) ** 2 + (centre[1] - y) ** 2

    return min(world.places, key=distance)


def _read_singles(fit, grounds, world):
    """One Thing for each picture, as if it showed one object."""
    bank = _single_bank()
    names = _colour_names(grounds + fit.colour)
    things = []
    for t, colour in zip(fit.template, names):
        size = _size_name(world, bank.radius[t])
        place = _place_name(world, bank.x[t], bank.y[t])
        things.append(Thing(SHAPES[bank.shape[t]], colour, size, place))
    return things


def _read_halves(fits, grounds, banks):
    """The two Things of each picture, as if it showed a pair in this relation."""
    halves = []
    for fit, bank in zip(fits, banks):
        names = _colour_names(grounds + fit.colour)
        shapes = [SHAPES[bank.shape[t]] for t in fit.template]
        halves.append([Thing(s, c) for s, c in zip(shapes, names)])
    return list(zip(*halves))


def _take_pairs(specs, gain, difference, grounds):
    """Puts pairs where they explain clearly more than singles. Returns the gains."""
    needed = PAIR_GAIN * gain
    for relation, banks in _pair_banks().items():
        fits = [_fit(difference, bank) for bank in banks]
        seen = _visible(fits[0]) & _visible(fits[1])
        both = np.where(seen, _joint_gain(fits, banks), 0.0)
        things = _read_halves(fits, grounds, banks)
        for i in np.flatnonzero(both > needed):
            specs[i] = specs[i]._replace(things=things[i], relation=relation)
        gain, needed = np.maximum(gain, both), np.maximum(needed, both)
    return gain


def _read_chunk(images, world):
    small = _small(images)
    grounds = _ground(small)
    planes = np.moveaxis(small - grounds[:, None, None], -1, 1)
    difference = _blurred(planes).reshape(len(images), 3, -1)
    total = (difference**2).sum((1, 2)) + 1e-6
    single = _fit(difference, _single_bank())
    names = _ground_names(grounds)
    things = _read_singles(single, grounds, world)
    specs = [Spec(world.name, (t,), g) for t, g in zip(things, names)]
    gain = np.where(_visible(single), single.gain, 0.0)
    if world.related:
        gain = _take_pairs(specs, gain, difference, grounds)
    for i in np.flatnonzero(gain < SHARE * total):
        specs[i] = Spec(world.name, (), names[i])
    return specs


def read(images, world):
    """What pictures of the worlds "simple" and "pairs" show.

    images: uint8 [n, y, x, 3], any size. Returns a list of n Specs; one without a thing
    where no object is found, an empty name where a colour or background has none.
    """
    world = world_of(world)
    if world.name not in ("simple", "pairs"):
        raise BadInput(f"Pictures of the world {world.name!r} cannot be read back.")
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise BadInput(
            f"Pictures are uint8 [n, y, x, 3], not {images.dtype} {images.shape}."
        )
    starts = range(0, len(images), CHUNK)
    chunks = [_read_chunk(images[i : i + CHUNK], world) for i in starts]
    return [spec for chunk in chunks for spec in chunk]
