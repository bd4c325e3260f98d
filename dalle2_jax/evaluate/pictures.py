"""Sets of pictures to be judged, wherever they lie: folders, tar shards, .npz, a model.

Every set gives uint8 pictures by their numbers, brought to one size once and rounded
once; all metrics see the same bytes.
"""

import functools
import hashlib
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from dalle2_jax.cascade import cascade
from dalle2_jax.data.images import read_image, to_rgb
from dalle2_jax.data.numpy_files import arrays_of
from dalle2_jax.data.picture_folder import captions_beside
from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.shard_paths import is_shards
from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.features import extract
from dalle2_jax.shard.mesh import MeshConfig, make_mesh, replicated
from dalle2_jax.unclip import Request, need, prior_of, read, sample_keys, to_uint8

KINDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
THREADS = 8


class PictureSet(NamedTuple):
    """Pictures by number.

    name: for people; count: how many; identity: JSON-able, changes when the pictures
    do; fetch: numbers [b], ascending -> uint8 [b, y, x, 3]; captions: as many strings,
    or None.
    """

    name: str
    count: int
    identity: dict
    fetch: Callable
    captions: list | None = None


def open_pictures(where, size=0, crop="center"):
    """The pictures of a folder, of tar shards or of an .npz with arr_0.

    Args:
        where: a path or pattern; tar shards (a pattern, or a folder of them) have
            captions.
        size: side that they are brought to (`fitted`); 0: they stay as they are and
            must be of one size.
        crop: as in `fitted`.

    Raises:
        BadInput: nothing there, or not as told; from fetch, a picture that cannot be
            read or is of another size.
    """
    path = Path(where)
    if path.suffix == ".npz":
        return array_pictures(path, size, crop)
    if is_shards(where):
        return shard_pictures([str(where)], size, crop)
    if not path.is_dir():
        raise BadInput(f"{where} is no folder of pictures, tar shard or .npz file.")
    return folder_pictures(path, size, crop)


def folder_pictures(folder, size=0, crop="center", files=None):
    """The pictures in a folder and its subfolders in the order of their names.

    They have captions where a KEY.txt or KEY.json lies beside every one of them.
    files: these instead of all that are there. Else as in `open_pictures`.
    """
    if files is None:
        found = (
            path for path in Path(folder).rglob("*") if path.suffix.lower() in KINDS
        )
        files = sorted(path for path in found if not path.name.startswith("."))
    if not files:
        raise BadInput(f"{folder} holds no pictures ({', '.join(KINDS[:3])}, ...).")
    listed = hashlib.sha256()
    for path in files:
        listed.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())

    def one(number):
        return decoded(files[number].read_bytes(), str(files[number]), size, crop)

    identity = {"files": listed.hexdigest(), "size": size, "crop": crop}
    captions = captions_beside(files)
    if captions is not None:
        said = hashlib.sha256("\n".join(captions).encode()).hexdigest()
        identity["captions"] = said
    return _checked(Path(folder).name, len(files), identity, one, captions)


def shard_pictures(patterns, size=0, crop="center"):
    """The pictures and captions of tar shards; arguments as in `open_pictures`."""
    source = ShardSource(patterns)

    def one(number):
        return decoded(source.pair(number)[0], source.name(number), size, crop)

    shards = [Path(shard).name for shard in source.shards]
    counts = [source.size_of(i) for i in range(len(shards))]
    captions = list(source.captions())
    said = hashlib.sha256("\n".join(captions).encode()).hexdigest()
    listed = hashlib.sha256(repr(list(zip(shards, counts))).encode()).hexdigest()
    identity = {"shards": listed, "captions": said, "size": size, "crop": crop}
    name = shards[0] if len(shards) == 1 else f"{shards[0]} and {len(shards) - 1} more"
    return _checked(name, len(source), identity, one, captions)


def array_pictures(path, size=0, crop="center"):
    """The pictures of an .npz, arr_0 uint8 [n, y, x, 3] (ADM's); else as above."""
    images = arrays_of(path, "arr_0".__eq__).get("arr_0")
    shape = np.shape(images)
    if len(shape) != 4 or shape[-1] != 3 or images.dtype != np.uint8 or not shape[0]:
        raise BadInput(
            f"{path} needs arr_0 of uint8 [n, y, x, 3] to be a set of pictures; it "
            f"has {'none' if images is None else f'{images.dtype} {list(shape)}'}."
        )

    def one(number):
        image = images[number]
        return np.asarray(fitted(Image.fromarray(image), size, crop)) if size else image

    listed = hashlib.sha256(images[:: max(1, len(images) // 64)].tobytes()).hexdigest()
    identity = {"arr_0": listed, "shape": shape, "size": size, "crop": crop}
    return _checked(Path(path).name, len(images), identity, one)


def drawn_pictures(model, captions, how, seed, size=0, unit=16):
    """What a model draws for captions, number i with the noise of (seed, i).

    Args:
        model: UnCLIP.
        captions: list of strings.
        how: {stage: Sampling}.
        seed: of the noise.
        size: side that larger pictures are brought to; 0: they stay as drawn.
        unit: samples per device and program.

    Raises:
        BadInput: the model lacks a stage.
    """
    need(model, "clip", prior_of(model), "decoder")
    side = side_of(model)
    devices = jax.local_devices()[: math.ceil(len(captions) / unit)]
    shared = replicated(make_mesh(MeshConfig(), devices))

    def fetch(numbers):
        keys = np.concatenate([_key_data(seed, int(i)) for i in numbers])

        def run(work, given):
            params, others = jax.device_put((work.params, work.shared), shared)
            lent = work._replace(params=params, shared=others)
            arrays = jax.tree.map(np.asarray, given), keys
            return extract(lambda pair: _run(lent, *pair), arrays, unit, devices)

        asked = read(model, Request([captions[i] for i in numbers]))
        images = to_uint8(run(*cascade(model, asked, run, how, "prior")))
        if not size or side <= size:
            return images
        shrunk = (fitted(Image.fromarray(image), size, "squeeze") for image in images)
        return np.stack([np.asarray(image) for image in shrunk])

    return PictureSet("drawn", len(captions), {}, fetch, list(captions))


def _run(work, given, keys):
    return work(given, jax.random.wrap_key_data(keys))


def side_of(model):
    """The side of the pictures that a model draws, in pixels."""
    grown = (up.cfg.factor for up in (model.upsampler, model.upsampler_2) if up)
    return model.decoder.cfg.size * math.prod(grown)


def decoded(data, name, size=0, crop="center"):
    """An encoded picture as uint8 [y, x, 3], `fitted` to size unless that is 0.

    Transparency shows white; EXIF rotation is not applied, as in other packages.

    Raises:
        BadInput: it cannot be decoded; says which.
    """

    def read(image):
        image = to_rgb(image)
        return np.asarray(fitted(image, size, crop) if size else image)

    return read_image(data, name, read)


def fitted(image, size, crop="center"):
    """A PIL image at size x size, by bicubic (antialiased, PIL's on uint8).

    crop: "center" brings the shorter side to `size` and cuts out the centre, "squeeze"
    changes the sides' ratio. What has the size already is left alone.
    """
    if image.size == (size, size):
        return image
    if crop == "squeeze":
        return image.resize((size, size), Image.Resampling.BICUBIC)
    scale = size / min(image.size)
    sides = tuple(max(size, round(side * scale)) for side in image.size)
    left, top = ((side - size) // 2 for side in sides)
    image = image.resize(sides, Image.Resampling.BICUBIC)
    return image.crop((left, top, left + size, top + size))


def _checked(name, count, identity, one, captions=None):
    """A PictureSet of single pictures, which must all have the size of the first."""
    first = functools.cache(lambda: one(0).shape)

    def same(number):
        image = one(int(number))
        if image.shape != first():
            y, x, wanted_y, wanted_x = *image.shape[:2], *first()[:2]
            raise BadInput(
                f"picture {number} of {name} is {x}x{y}, the first {wanted_x}x"
                f"{wanted_y}; give --size to bring all to one."
            )
        return image

    def fetch(numbers):
        with ThreadPoolExecutor(THREADS) as pool:
            return np.stack(list(pool.map(same, numbers)))

    return PictureSet(name, count, identity, fetch, captions)


def _key_data(seed, number):
    return np.asarray(jax.random.key_data(sample_keys(seed, number, 1)))
