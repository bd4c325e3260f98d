"""Inception features of pictures, from the published weights or ones that say so."""

import functools
import hashlib
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dalle2_jax.components import file_sha256
from dalle2_jax.convert.containers import AGAIN, read_state
from dalle2_jax.convert.inception import (
    SHA256,
    check_published,
    counters,
    inception_table,
)
from dalle2_jax.convert.rename import flat_paths, import_params
from dalle2_jax.data.picture_arrays import as_bytes
from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.features import beside, extract
from dalle2_jax.evaluate.inception_network import SIZE, InceptionNetwork, conv_names
from dalle2_jax.evaluate.resize import RESIZES
from dalle2_jax.layers.init import param_shapes

FORMAT = "dalle2_jax inception"  # of a converted file's metadata
SCALES = {  # 0..255 -> the network's input; pytorch-fid has one of its own
    "clean": lambda x: (x - 128) / 128,
    "legacy_tf": lambda x: (x - 128) / 128,
    "legacy_pytorch": lambda x: x / 127.5 - 1,
}


class Inception(NamedTuple):
    """params: nested dict of float32; sha256: of the file that they came in."""

    params: dict
    sha256: str

    @property
    def published(self):
        """Whether these are the weights that published numbers are measured with."""
        return self.sha256 == SHA256


def load_inception(path, published=True):
    """The network's weights, from the port's file or what `convert_inception` made.

    Args:
        path: pt_inception-2015-12-05-6726825d.pth, or a converted .safetensors.
        published: refuse a file of the port's that is not the published one. With
            False its numbers compare with nobody's; `sha256` must stand beside them.

    Raises:
        BadInput: absent, of another kind, damaged, or not the published file.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path} does not exist; give Inception's weight file.")
    if path.suffix == ".safetensors" and (converted := _converted(path)):
        return converted
    if published:
        check_published(path)
    state = read_state(path)
    rows, shapes = inception_table(conv_names()), inception_shapes()
    params = import_params(state, rows, shapes, str(path), counters(state))
    return Inception(params, file_sha256(path))


def convert_inception(source, to, published=True):
    """Writes the weights of `source` as a safetensors file of ours; an Inception.

    Raises:
        BadInput: as `load_inception`, or `to` is no .safetensors.
    """
    to = Path(to)
    if to.suffix != ".safetensors":
        raise BadInput(f"{to} must end in .safetensors; Inception is one file.")
    inception = load_inception(source, published)
    flat = {k: np.ascontiguousarray(v) for k, v in flat_paths(inception.params).items()}
    metadata = {
        "format": FORMAT,
        "source_sha256": inception.sha256,
        "params_sha256": digest(flat),
    }
    to.parent.mkdir(parents=True, exist_ok=True)
    new = to.with_name(f".{to.name}.new")
    save_file(flat, new, metadata)
    new.replace(to)
    return inception


def digest(arrays):
    """SHA-256 over the bytes of {name: float32 array} in the order of names."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        found.update(np.ascontiguousarray(arrays[name], "<f4"))
    return found.hexdigest()


def inception_function(inception, resize="legacy_tf"):
    """The network as a function of a batch, on the devices that the batch is on.

    Args:
        inception: Inception.
        resize: a name of RESIZES.

    Returns:
        b pictures (`picture_arrays`) -> {"pool": [b, 2048], "spatial": [b, 2023],
        "logits": [b, 1008] without bias}, float32. It raises BadInput for images of
        another form.

    Raises:
        BadInput: an unknown resize.
    """
    if resize not in RESIZES:
        raise BadInput(f"the resize {resize} is none of {', '.join(RESIZES)}.")
    params = beside(inception.params)

    def function(images):
        images = as_bytes(images)
        return _network(params(images), images, resize)

    return function


def inception_features(inception, images, resize="legacy_tf"):
    """Features of any number of pictures on the host, as host arrays.

    A picture's features do not depend on the others: `extract` sees to that.
    Arguments, result and errors are those of `inception_function`.
    """
    function = inception_function(inception, resize)
    return extract(function, np.asarray(as_bytes(images)))


@functools.partial(jax.jit, static_argnums=2)
def _network(params, images, resize):
    pixels = SCALES[resize](RESIZES[resize](images, SIZE))
    taps = InceptionNetwork().apply({"params": params}, pixels)
    return {name: getattr(taps, name) for name in ("pool", "spatial", "logits")}


@functools.cache
def inception_shapes():
    """The tree of Inception's parameters as ShapeDtypeStructs."""
    return param_shapes(
        InceptionNetwork(), jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    )


def _converted(path):
    """A file of `convert_inception`; None for any other safetensors file."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                return None
            flat = {key: file.get_tensor(key) for key in sorted(file.keys())}
    except (OSError, SafetensorError) as error:
        raise BadInput(
            f"{path} is incomplete or damaged ({error}); {AGAIN}."
        ) from error
    shapes = {k: leaf.shape for k, leaf in flat_paths(inception_shapes()).items()}
    same = {k: a.shape for k, a in flat.items()} == shapes
    if not same or digest(flat) != metadata.get("params_sha256"):
        raise BadInput(f"{path} is damaged; convert Inception's weights again.")
    return Inception(unflatten_dict(flat, sep="/"), metadata["source_sha256"])
