"""unCLIP §2.1: the degradation that the 256 -> 1024 upsampler learns to undo (BSR).

Zhang et al. (2021), used by latent diffusion and so by the paper: two blurs, two
resizes, noise and JPEG in random order, another recipe for every picture. The paper
does not say whether it took the full recipe or the light one; both are rows of RECIPES.

All of it runs inside the training step. A picture keeps a canvas of fixed size; the
part of the canvas that it fills shrinks, and the rest repeats its border.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.decoder.jpeg import jpeg


class Recipe(NamedTuple):
    """blur: multiplies widths of blurs; noise: deviation of 255; quality: of JPEG."""

    blur: float
    noise: tuple[float, float]
    quality: tuple[int, int]


RECIPES = {
    "bsr": Recipe(1.0, (2.0, 25.0), (30, 95)),
    "bsr_light": Recipe(0.25, (1.0, 2.0), (80, 95)),
}
BLUR, RESIZE, RESIZE_LAST, NOISE, JPEG = range(5)
STEPS = np.array([BLUR, BLUR, RESIZE, RESIZE_LAST, NOISE, JPEG])
RADIUS = 9  # pixels of a blur's kernel: three times the largest deviation


class Canvas(NamedTuple):
    """A picture inside a fixed frame: pixels [y, x, 3] in [0, 1], size int [2]."""

    pixels: jax.Array
    size: jax.Array


def bsr(key, high, factor, kind="bsr"):
    """Small pictures, badly treated, of large ones.

    Args:
        key: one typed key, or one per sample [b]; a sample depends on its own alone.
        high: float [b, y, x, 3] in [-1, 1].
        factor: y and x of the result are so many times smaller.
        kind: a row of RECIPES.

    Returns:
        float32 [b, y / factor, x / factor, 3] in [-1, 1].
    """
    if not key.ndim:
        key = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(high)))
    recipe = RECIPES[kind]
    one = jax.vmap(lambda k, x: _degraded(k, x, factor, recipe))
    return one(key, (high.astype(jnp.float32) + 1) / 2) * 2 - 1


def _degraded(key, image, factor, recipe):
    """`bsr` of one picture [y, x, 3] in [0, 1]."""
    k_choices, k_eps = jax.random.split(key)
    choices = jax.random.uniform(k_choices, (2 + len(STEPS), len(STEPS)))
    eps = jax.random.normal(k_eps, (*image.shape[:2], 4))
    whole, small = (np.array(image.shape[:2]) // n for n in (1, factor))
    start, first = jnp.asarray(whole), choices[0]
    if factor >= 4:  # a quarter of the pictures starts at half the size
        start = jnp.where(first[0] < 0.25, whole // 2, whole)
    canvas = _resized(first[1:], Canvas(image, jnp.asarray(whole)), start)
    branches = (
        lambda u, c: _blurred(u, c, factor, recipe),
        lambda u, c: _resized(u, c, _some_size(u[1], start, small)),
        lambda u, c: _resized(u, c, small),
        lambda u, c: _noisy(u, c, eps, recipe),
        lambda u, c: _compressed(u, c, recipe, 0.9),
    )

    def step(canvas, given):
        number, u = given
        return _held(jax.lax.switch(number, branches, u, canvas)), None

    canvas, _ = jax.lax.scan(step, canvas, (_order(choices[1]), choices[2:]))
    return _compressed(first[2:], canvas, recipe, 1.0).pixels[: small[0], : small[1]]


def _order(u):
    """The steps shuffled, the resize to the final size behind the other one.

    u [6]: uniform numbers, as everywhere below.
    """
    order = jnp.asarray(STEPS)[jnp.argsort(u)]
    wrong = jnp.argmax(order == RESIZE) > jnp.argmax(order == RESIZE_LAST)
    other = RESIZE + RESIZE_LAST - order
    swapped = jnp.where((order == RESIZE) | (order == RESIZE_LAST), other, order)
    return jnp.where(wrong, swapped, order)


def _held(canvas):
    """Repeats the picture's border over the rest of the canvas; values in [0, 1]."""
    y, x = (
        jnp.minimum(jnp.arange(side), size - 1)
        for side, size in zip(canvas.pixels.shape, canvas.size)
    )
    return canvas._replace(pixels=jnp.clip(canvas.pixels[y][:, x], 0, 1))


def _blurred(u, canvas, factor, recipe):
    """Blur by a Gaussian, round or turned, up to 3 pixels wide."""
    kernel = blur_kernel(u, factor, recipe)[:, :, None, None]
    pads = [(RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0)]
    colours = jnp.pad(canvas.pixels, pads, mode="edge").transpose(2, 0, 1)[..., None]
    dimensions = ("NHWC", "HWIO", "NHWC")
    blurred = jax.lax.conv_general_dilated(
        colours, kernel, (1, 1), "VALID", dimension_numbers=dimensions
    )
    return canvas._replace(pixels=blurred[..., 0].transpose(1, 2, 0))


def blur_kernel(u, factor, recipe):
    """A random Gaussian [2 RADIUS + 1, 2 RADIUS + 1] of sum 1."""
    angle = u[2] * np.pi
    equal = ((2 + 0.2 * factor) * recipe.blur * u[0]) ** 2
    variances = (4 + factor) * recipe.blur * u[:2]
    variances = jnp.where(u[3] < 0.5, equal, variances) + 1e-4
    y, x = np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1]
    along = jnp.cos(angle) * x + jnp.sin(angle) * y
    across = jnp.cos(angle) * y - jnp.sin(angle) * x
    kernel = jnp.exp(-(along**2 / variances[0] + across**2 / variances[1]) / 2)
    return kernel / kernel.sum()


def _some_size(u, start, small):
    """Between the start and half of the final size, uniform in the factor."""
    largest = 2 * start / small
    return jnp.round(start / (1 + u * (largest - 1))).astype(jnp.int32)


def _resized(u, canvas, size):
    """The picture at another size [2], by linear, cubic or area weights at random."""
    method = jnp.floor(3 * u[0]).astype(jnp.int32)
    y, x = (
        resize_weights(side, old, new, method)
        for side, old, new in zip(canvas.pixels.shape, canvas.size, size)
    )
    pixels = jnp.einsum("ij,kl,jlc->ikc", y, x, canvas.pixels)
    return Canvas(pixels, jnp.asarray(size, canvas.size.dtype))


def resize_weights(side, old, new, method):
    """Matrix [side, side]: `new` pixels from `old` pixels, where side is the frame.

    method: 0 linear, 1 cubic (a = -0.5), 2 mean over the area; rows from `new` on are
    meaningless.
    """
    ratio = old / new
    centre = (jnp.arange(side) + 0.5) * ratio - 0.5
    pixel = jnp.arange(side)
    d = jnp.abs(pixel - jnp.clip(centre, 0, old - 1)[:, None])
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    cubic = jnp.where(d < 1, near, jnp.where(d < 2, far, 0))
    area = jnp.clip((jnp.maximum(ratio, 1) + 1) / 2 - d, 0, 1)
    kernels = jnp.stack([jnp.maximum(1 - d, 0), cubic, area])
    weights = jnp.where(pixel < old, kernels[method], 0)
    return weights / weights.sum(1, keepdims=True)


def _noisy(u, canvas, eps, recipe):
    """Gaussian noise: of two fifths in colour, of two fifths grey, else between.

    eps [y, x, 4]: normal numbers for three colours and grey.
    """
    low, high = recipe.noise
    level, grey = (low + (high - low) * u[0]) / 255, jnp.clip(u[1] * 5 - 2, 0, 1)
    noise = jnp.sqrt(1 - grey) * eps[..., :3] + jnp.sqrt(grey) * eps[..., 3:]
    return canvas._replace(pixels=canvas.pixels + level * noise)


def _compressed(u, canvas, recipe, chance):
    """JPEG of random quality, done with probability `chance`."""
    low, high = recipe.quality
    quality = jnp.floor(low + (high + 1 - low) * u[0])
    worse = jpeg(jnp.clip(canvas.pixels, 0, 1), quality)
    done = u[1] < chance
    return canvas._replace(pixels=jnp.where(done, worse, canvas.pixels))
