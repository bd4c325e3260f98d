"""Draws a spec: antialiased by signed distance, jittered in place, size and colour."""

from functools import lru_cache

import numpy as np

from dalle2_jax.data.shapes import BACKGROUNDS, COLOURS, RELATIONS, world_of

PLACE_JITTER = 0.018  # picture sides
RADIUS_JITTER = 0.04  # of the radius
COLOUR_JITTER = 9.0  # of 255, each channel
GREY_JITTER = 10.0


def _circle(u, v):
    return np.hypot(u, v) - 1.0


def _square(u, v):
    return np.maximum(np.abs(u), np.abs(v)) - 0.87


def _triangle(u, v):
    side = (np.sqrt(3.0) * np.abs(u) - (v + 0.866)) / 2.0
    return np.maximum(v - 0.866, side)


def _cross(u, v):
    u, v = np.abs(u), np.abs(v)
    long, short = np.maximum(u, v), np.minimum(u, v)
    return np.maximum(long - 1.0, short - 0.34)


def _ring(u, v):
    return np.abs(np.hypot(u, v) - 0.76) - 0.24


DISTANCE = {  # signed distance to the edge, of a shape of half-width 1 at the origin
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "ring": _ring,
}


@lru_cache(maxsize=8)
def _pixels(size):
    """Pixel centres in picture sides: a row [1, size] and a column [size, 1]."""
    line = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return line[None, :], line[:, None]


def coverage(shape, x, y, radius, size):
    """How much of each pixel a shape covers: float32 [size, size] in [0, 1]."""
    across, down = _pixels(size)
    distance = DISTANCE[shape]((across - x) / radius, (down - y) / radius)
    return np.clip(0.5 - distance * (radius * size), 0.0, 1.0).astype(np.float32)


def layout(spec):
    """[(x, y, radius)] of each thing before the jitter, in picture sides."""
    world = world_of(spec.world)
    if spec.relation:
        dx, dy = RELATIONS[spec.relation]
        radius = world.radii["small"]
        return [(0.5 + dx, 0.5 + dy, radius), (0.5 - dx, 0.5 - dy, radius)]
    return [(*world.places[t.place], world.radii[t.size]) for t in spec.things]


def _texture(name, size, radius):
    """Share of the object's colour at each pixel, float32, broadcast to the picture."""
    across, down = _pixels(size)
    turn = 2.0 * np.pi * 2.5 / (2.0 * radius)
    if name == "striped":
        return 0.7 + 0.3 * np.sign(np.sin(turn * (across + down)))
    if name == "dotted":
        return 0.7 + 0.3 * np.sign(np.sin(turn * across) * np.sin(turn * down) + 0.3)
    return np.float32(1.0)


def render(spec, size, rng):
    """Draws a spec with its jitter. Returns uint8 [size, size, 3]."""
    level = BACKGROUNDS[spec.background] + rng.uniform(-GREY_JITTER, GREY_JITTER)
    picture = np.full((size, size, 3), level, np.float32)
    for thing, (x, y, radius) in zip(spec.things, layout(spec)):
        dx, dy, grow = rng.uniform(-1.0, 1.0, 3)
        colour = np.float32(COLOURS[thing.colour])
        colour += rng.uniform(-COLOUR_JITTER, COLOUR_JITTER, 3).astype(np.float32)
        radius *= 1.0 + RADIUS_JITTER * grow
        x, y = x + PLACE_JITTER * dx, y + PLACE_JITTER * dy
        alpha = coverage(thing.shape, x, y, radius, size)[..., None]
        shade = np.atleast_2d(_texture(thing.texture, size, radius))[..., None]
        picture += alpha * (colour * shade - picture)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)
