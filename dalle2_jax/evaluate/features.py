"""Feature networks: from pictures to the vectors that distances are taken between."""

import hashlib
import importlib
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from dalle2_jax.components import params_sha256
from dalle2_jax.data.picture_arrays import as_bytes
from dalle2_jax.errors import BadInput
from dalle2_jax.shard.mesh import MeshConfig, batch_sharding, make_mesh, replicated
from dalle2_jax.unclip import encode_images, from_uint8

UNIT = 16  # pictures per device and program; all features depend on their unit alone
OWN_RESIZE = "its own"
UNPUBLISHED = "inception of unpublished weights"  # the SHA-256 beside it says which


class Extractor(NamedTuple):
    """A feature network, its weights inside.

    function: b pictures (`picture_arrays`) -> dict of float32 arrays [b, ...], of them
    "pool" [b, d]; resize: the rule that pictures are brought to its input size by;
    sha256: of its weights.
    """

    name: str
    function: Callable
    resize: str
    sha256: str


def clip_extractor(component, name="clip"):
    """z_i of a CLIP, resized as the model itself does; component: Component of CLIP."""
    encode = jax.jit(
        lambda params, x: encode_images(component.cfg, params, from_uint8(x))
    )
    params = beside(component.params)

    def function(images):
        images = as_bytes(images)
        return {"pool": encode(params(images), images)}

    return Extractor(name, function, OWN_RESIZE, params_sha256(component.params))


def inception_extractor(path, resize="legacy_tf"):
    """The Inception network of FID, called by its date where its weights are those.

    Args:
        path: of its weights.
        resize: a name of evaluate.resize.RESIZES.

    Raises:
        BadInput: the file is absent or another one.
    """
    from dalle2_jax.evaluate.inception import inception_function, load_inception

    inception = load_inception(path)
    function = inception_function(inception, resize)
    name = "inception-2015-12-05" if inception.published else UNPUBLISHED
    return Extractor(name, function, resize, inception.sha256)


def plugin_extractor(name):
    """A function of the user's own, "module:function", as a feature network.

    It takes uint8 [b, y, x, 3] and returns float32 [b, d], or a dict with that under
    "pool". Its attribute `sha256`, where it has one, names its weights; else its
    module's file does.

    Raises:
        BadInput: no such module or function; from the function, features of no such
            shape.
    """
    module, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        call = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(
            f"--features {name} cannot be imported ({error}); write module:function "
            "of a module that Python finds here."
        ) from error
    finally:
        sys.path.remove(os.getcwd())

    def function(images):
        images = as_bytes(images)
        found = call(images)
        found = found if isinstance(found, dict) else {"pool": found}
        shape = np.shape(found.get("pool"))
        if len(shape) != 2 or shape[0] != len(images):
            raise BadInput(
                f"--features {name} returned {shape} for {len(images)} pictures; it "
                "must return one row of numbers for each."
            )
        return found

    file = Path(sys.modules[module].__file__ or "")
    source = hashlib.sha256(file.read_bytes() if file.is_file() else b"").hexdigest()
    return Extractor(name, function, OWN_RESIZE, getattr(call, "sha256", source))


def extract(function, arrays, unit=UNIT, devices=None):
    """Rows through a batched function in programs of one shape.

    Every program has `unit` rows on each device; row i always takes place i mod unit,
    so that what comes out depends on neither the number of rows nor of devices.

    Args:
        function: arrays [b, ...] -> tree of arrays [b, ...]; an Extractor's, say.
        arrays: host array [n, ...], or a tuple of them, given as one argument.
        unit: rows per device and program.
        devices: of this process; default: as many as there are units.

    Returns:
        The tree, of host arrays [n, ...].
    """
    n = len(jax.tree.leaves(arrays)[0])
    devices = devices or jax.local_devices()[: math.ceil(n / unit)]
    layout = batch_sharding(make_mesh(MeshConfig(), devices))
    step, parts = unit * len(devices), []
    for first in range(0, n, step):
        some = jax.tree.map(lambda x, first=first: x[first : first + step], arrays)
        padded = jax.tree.map(lambda x: np.pad(x, _short(x, step)), some)
        found = function(jax.device_put(padded, layout))
        parts.append(jax.tree.map(lambda x, k=n - first: np.asarray(x)[:k], found))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def beside(params):
    """A function images -> params on the devices of the images, moved there once.

    params: tree of arrays. images: host array, or one on devices, sharded or not.
    """
    held = {}

    def placed(images):
        if not isinstance(images, jax.Array):
            return held.setdefault(None, jax.device_put(params))
        layout = images.sharding
        if isinstance(layout, NamedSharding):
            layout = replicated(layout.mesh)
        if layout not in held:
            held[layout] = jax.device_put(params, layout)
        return held[layout]

    return placed


def _short(x, rows):
    return [(0, rows - len(x))] + [(0, 0)] * (x.ndim - 1)
