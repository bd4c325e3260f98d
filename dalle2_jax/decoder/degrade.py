"""unCLIP §2.1: what happens to an upsampler's training images: blur and crops."""

import jax
import jax.numpy as jnp
import numpy as np


def blur(image, sigma=0.6):
    """Gaussian blur of 3x3 pixels, reflected at the border (unCLIP §2.1).

    image float [b, y, x, c] -> the same shape.
    """
    side = float(np.exp(-0.5 / sigma**2))
    middle, side = 1 / (1 + 2 * side), side / (1 + 2 * side)
    for axis in (1, 2):
        pads = [(0, 0)] * image.ndim
        pads[axis] = (1, 1)
        padded = jnp.pad(image, pads, mode="reflect")
        size = image.shape[axis]
        before, after = (
            jax.lax.slice_in_dim(padded, start, start + size, axis=axis)
            for start in (0, 2)
        )
        image = middle * image + side * (before + after)
    return image


def crops(key, image, fraction, factor=1):
    """One random square crop per sample, its corner on a multiple of `factor`.

    image [b, y, x, c]; key: one typed key or one per sample [b]; fraction: of the side,
    so 0.25 is a crop of y / 4. With the same key, the crop of the image at factor f and
    the crop of the f times smaller image at factor 1 show the same place. Returns [b,
    fraction * y, fraction * x, c].
    """
    batch, rows, columns, channels = image.shape
    if not key.ndim:
        key = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))
    size = [round(side // factor * fraction) for side in (rows, columns)]
    free = [side // factor - s + 1 for side, s in zip((rows, columns), size)]
    shape = (size[0] * factor, size[1] * factor, channels)

    def crop(key, image):
        y, x = jax.random.randint(key, (2,), 0, jnp.array(free)) * factor
        return jax.lax.dynamic_slice(image, (y, x, 0), shape)

    return jax.vmap(crop)(key, image)
