"""unCLIP §2.1: what JPEG loses, inside a compiled program.

Entropy coding loses nothing, so this is all of baseline JPEG (ITU T.81): YCbCr, chroma
at half the resolution, cosine transform of 8 x 8 blocks, rounding to a table.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Table K.1 (luminance) and K.2 (chrominance) of ITU T.81.
LUMINANCE = """
    16 11 10 16  24  40  51  61   12 12 14 19  26  58  60  55
    14 13 16 24  40  57  69  56   14 17 22 29  51  87  80  62
    18 22 37 56  68 109 103  77   24 35 55 64  81 104 113  92
    49 64 78 87 103 121 120 101   72 92 95 98 112 100 103  99
"""
CHROMINANCE = """
    17 18 24 47 99 99 99 99   18 21 26 66 99 99 99 99
    24 26 56 99 99 99 99 99   47 66 99 99 99 99 99 99
    99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99
    99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99
"""
TABLES = [np.float32(t.split()).reshape(8, 8) for t in (LUMINANCE, CHROMINANCE)]
TO_YCC = np.float32(
    [
        [0.299, 0.587, 0.114],
        [-0.168736, -0.331264, 0.5],
        [0.5, -0.418688, -0.081312],
    ]
)
MIDDLE = np.float32([0, 128, 128])
PIXELS = 16  # of a side of a coded unit: two blocks of luminance


def _cosines():
    """The orthonormal cosine transform [frequency, place] of 8 numbers."""
    k, n = np.arange(8)[:, None], np.arange(8)
    basis = np.cos((2 * n + 1) * k * np.pi / 16) / 2
    return np.float32(np.where(k == 0, np.sqrt(1 / 8), basis))


COSINES = _cosines()


def scaled(table, quality):
    """A quantisation table [8, 8] at a quality of 1 to 100, as libjpeg scales it."""
    quality = jnp.asarray(quality, jnp.float32)
    percent = jnp.where(quality < 50, jnp.floor(5000 / quality), 200 - 2 * quality)
    return jnp.clip(jnp.floor((table * percent + 50) / 100), 1, 255)


def jpeg(image, quality):
    """A picture after being kept as JPEG with chroma at half the resolution.

    image float [y, x, 3] in [0, 1]; quality: 1 to 100, may be traced. Returns the same
    shape, multiples of 1 / 255. Sides that are no multiples of 16 are filled up with
    the border, as encoders do.
    """
    rows, columns, _ = image.shape
    pads = (-rows % PIXELS, -columns % PIXELS)
    image = jnp.pad(image, [(0, pads[0]), (0, pads[1]), (0, 0)], mode="edge")
    ycc = jnp.round(jnp.round(image * 255) @ TO_YCC.T + MIDDLE)
    height, width = ycc.shape[:2]
    luma = _rounded(ycc[..., :1], scaled(TABLES[0], quality))
    chroma = ycc[..., 1:].reshape(height // 2, 2, width // 2, 2, 2).mean((1, 3))
    chroma = _rounded(jnp.round(chroma), scaled(TABLES[1], quality))
    chroma = jax.image.resize(chroma, (height, width, 2), "linear")
    ycc = jnp.concatenate([luma, jnp.round(chroma)], axis=-1)
    rgb = (ycc - MIDDLE) @ np.linalg.inv(TO_YCC).T.astype(np.float32)
    return jnp.clip(jnp.round(rgb[:rows, :columns]), 0, 255) / 255


def _rounded(planes, table):
    """Planes [y, x, c] in 0..255 whose 8 x 8 blocks were rounded to a table."""
    rows, columns, c = planes.shape
    blocks = planes.reshape(rows // 8, 8, columns // 8, 8, c) - 128
    spectrum = jnp.einsum("ki,lj,yixjc->ykxlc", COSINES, COSINES, blocks)
    steps = table[None, :, None, :, None]
    spectrum = jnp.round(spectrum / steps) * steps
    blocks = jnp.einsum("ki,lj,ykxlc->yixjc", COSINES, COSINES, spectrum)
    return jnp.clip(jnp.round(blocks + 128), 0, 255).reshape(planes.shape)
