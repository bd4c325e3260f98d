"""Resizing to a network's input, by the name of the protocol that does it so.

Published distances differ by the resize alone (Parmar et al. 2022), so every number
names its own. None of them rounds: what comes out is float32 in 0..255.
"""

import jax
import jax.numpy as jnp
import numpy as np


def legacy_tf(images, size):
    """TensorFlow 1's bilinear: pixel i comes from i * in / out, nothing is averaged.

    Of TTUR's original script, ADM's evaluator, EDM and torch-fidelity.

    Args:
        images: [b, y, x, 3] in 0..255, any real type.
        size: of the result.

    Returns:
        float32 [b, size, size, 3] in 0..255.
    """
    return _bilinear(images, size, lambda i, scale: i * scale)


def legacy_pytorch(images, size):
    """PyTorch's bilinear: centres at i + 1/2, nothing is averaged (pytorch-fid).

    Arguments and result are those of `legacy_tf`.
    """
    return _bilinear(images, size, lambda i, s: np.maximum((i + 0.5) * s - 0.5, 0))


def clean(images, size):
    """Antialiased bicubic (a = -1/2) in float, clipped to 0..255 (clean-fid).

    Arguments and result are those of `legacy_tf`.
    """
    x = jnp.asarray(images, jnp.float32)
    shape = (len(x), size, size, x.shape[-1])
    method, highest = jax.image.ResizeMethod.CUBIC, jax.lax.Precision.HIGHEST
    x = jax.image.resize(x, shape, method, antialias=True, precision=highest)
    return jnp.clip(x, 0, 255)


RESIZES = {"clean": clean, "legacy_tf": legacy_tf, "legacy_pytorch": legacy_pytorch}


def _bilinear(images, size, source):
    """Lerps columns, then rows; source(i, in / out) gives the places, in float32."""
    x = jnp.asarray(images, jnp.float32)
    for axis in (2, 1):
        count = x.shape[axis]
        index = np.arange(size, dtype=np.float32)
        place = source(index, np.float32(count / size))
        low = np.minimum(place.astype(np.int32), count - 1)
        high = np.minimum(low + 1, count - 1)
        part = (place - low).reshape((-1,) + (1,) * (3 - axis)).astype(np.float32)
        a, b = jnp.take(x, low, axis), jnp.take(x, high, axis)
        x = a + (b - a) * part
    return x
