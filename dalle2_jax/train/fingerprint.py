"""A number for the bits of every array: the same on any sharding, another for any flip.

Each element's bits, mixed with its place, go through a bijection of 32-bit numbers; the
sum modulo 2^32 is the fingerprint. So one changed element always shows, whatever it
changed to, and any other change shows but for one case in 2^32.
"""

import functools
import hashlib
import json
import math

import jax
import jax.numpy as jnp
import numpy as np

PLACE = 0x9E3779B9
MULTIPLIERS = (0x85EBCA6B, 0xC2B2AE35)  # murmur3's finaliser
CHUNK = 2**17  # elements that the host mixes at a time


def fingerprints(tree):
    """What identifies every leaf: {"a/b": [dtype, shape, uint32 as int]}.

    All processes of a run call it. Arrays of any dtype, typed keys included.
    """
    named = jax.tree_util.tree_flatten_with_path(tree)[0]
    leaves = [_plain(jnp.asarray(leaf)) for _, leaf in named]
    sums = jax.device_get(_sums(leaves))
    return {
        name_of(path): [str(x.dtype), list(x.shape), int(value)]
        for (path, _), x, value in zip(named, leaves, sums)
    }


def fingerprint_on_host(x):
    """The same three values of one NumPy array, without a device."""
    words = _as_words(np.ascontiguousarray(x).reshape(-1))
    total = 0
    for first in range(0, len(words), CHUNK):
        part = words[first : first + CHUNK]
        places = np.arange(first, first + len(part)).astype(np.uint32)
        total += int(_mixed(part, places).sum(dtype=np.uint32))
    return [str(x.dtype), list(x.shape), total % 2**32]


def digest(value):
    """16 hexadecimal digits of a JSON-able value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def name_of(path):
    """A leaf's path as "a/b/c"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


@jax.jit
def _sums(leaves):
    return [_sum(x) for x in leaves]


def _sum(x):
    words, shape = _bits(x), x.shape
    strides = [math.prod(shape[axis + 1 :]) % 2**32 for axis in range(len(shape))]
    axes = [
        jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(stride)
        for axis, stride in enumerate(strides)
    ]
    place = functools.reduce(jnp.add, axes, jnp.zeros(shape, jnp.uint32))
    if words.ndim > len(shape):  # two words of an element of 64 bits
        place = 2 * place[..., None] + jnp.arange(2, dtype=jnp.uint32)
    return jnp.sum(_mixed(words, place), dtype=jnp.uint32)


def _mixed(bits, place):
    """uint32 arrays of bits and places -> uint32; a bijection for each place."""
    x = bits ^ (place * np.uint32(PLACE))
    x = (x ^ (x >> 16)) * np.uint32(MULTIPLIERS[0])
    x = (x ^ (x >> 13)) * np.uint32(MULTIPLIERS[1])
    return x ^ (x >> 16)


def _plain(x):
    typed = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(x) if typed else x


def _bits(x):
    """The elements' bits as uint32: [...], or [..., 2] of elements of 64 bits."""
    if x.dtype == bool:
        return x.astype(jnp.uint32)
    width = jax.dtypes.itemsize_bits(x.dtype)
    if width >= 32:
        return jax.lax.bitcast_convert_type(x, jnp.uint32)
    return jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{width}")).astype(jnp.uint32)


def _as_words(x):
    """`_bits` of a flat NumPy array, flat."""
    if x.dtype.itemsize >= 4:
        return x.view(np.uint32)
    return x.view(np.dtype(f"uint{8 * x.dtype.itemsize}")).astype(np.uint32)
