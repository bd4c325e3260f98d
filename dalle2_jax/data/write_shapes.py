"""Writes a generated world as tar shards, and draws the lists that judge a model."""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dalle2_jax.config import SEEDS
from dalle2_jax.data.captions import caption
from dalle2_jax.data.render_shapes import render
from dalle2_jax.data.shapes import change_one, draw_spec, world_of
from dalle2_jax.errors import BadInput

DESCRIPTION = "shapes.json"
TRAIN, EVALUATE = 0, 1  # separate streams of random numbers of one seed


class Evaluation(NamedTuple):
    """specs and captions to be drawn by a model; images: real renders of the specs."""

    specs: list
    captions: list
    images: np.ndarray  # uint8 [n, size, size, 3]


class _Sample(NamedTuple):
    spec: tuple
    caption: str
    image: np.ndarray


def _dress(spec, size, rng):
    return _Sample(spec, caption(spec, rng), render(spec, size, rng))


def _partners(world, number, seed, size):
    """Two training samples that differ in one attribute; a function of its numbers."""
    rng = np.random.default_rng([seed, TRAIN, number])
    spec = draw_spec(world, rng, held_out=False)
    return _dress(spec, size, rng), _dress(change_one(spec, rng), size, rng)


def evaluation_specs(world, n, seed, held_out=True, size=64, count=None):
    """Specs that judge a model, with captions and real renders.

    held_out: True, each has a (shape, colour) pair that training never shows; False,
    none has. count: objects in each picture, None for any that the world has.
    Returns Evaluation; sample i is a function of (world, seed, i) alone.
    """
    rngs = [np.random.default_rng([seed, EVALUATE, i]) for i in range(n)]
    drawn = [_dress(draw_spec(world, r, held_out, count), size, r) for r in rngs]
    images = np.zeros((n, size, size, 3), np.uint8)
    for image, sample in zip(images, drawn):
        image[:] = sample.image
    return Evaluation([s.spec for s in drawn], [s.caption for s in drawn], images)


def _png(image):
    held = io.BytesIO()
    Image.fromarray(image).save(held, "png", compress_level=6)
    return held.getvalue()


def _add(tar, name, data):
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    tar.addfile(member, io.BytesIO(data))


def _add_sample(tar, key, sample):
    height, width, _ = sample.image.shape
    fields = {"key": key, "caption": sample.caption, "width": width, "height": height}
    fields.update(sample.spec.as_dict())
    _add(tar, f"{key}.png", _png(sample.image))
    _add(tar, f"{key}.txt", sample.caption.encode())
    _add(tar, f"{key}.json", json.dumps(fields).encode())


def _write_shard(path, numbers, key, draw):
    """Members of the records `numbers`; key and draw give name and sample of each."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in numbers:
            _add_sample(tar, key(number), draw(number))


def _write_all(folder, description):
    world, count, seed, size, per_shard = (
        description[name] for name in ("world", "count", "seed", "size", "shard_size")
    )
    last = (-1, ())

    def draw(number):
        nonlocal last
        if last[0] != number // 2:
            last = (number // 2, _partners(world, number // 2, seed, size))
        return last[1][number % 2]

    def key(number):
        return f"{number // per_shard:05d}{number % per_shard:04d}"

    for shard, start in enumerate(range(0, count, per_shard)):
        numbers = range(start, min(start + per_shard, count))
        _write_shard(folder / f"{shard:05d}.tar", numbers, key, draw)
    (folder / DESCRIPTION).write_text(_text(description))


def _text(description):
    return json.dumps(description, indent=1) + "\n"


def _check(description):
    for name, low, high in (
        ("count", 1, 10**9),
        ("size", 16, 1024),
        ("shard_size", 2, 10_000),
        ("seed", 0, SEEDS - 1),
    ):
        value = description[name]
        if not low <= value <= high:
            raise BadInput(f"{name} is {value}; it must lie in {low}..{high}.")
    if description["shard_size"] % 2:
        raise BadInput("shard_size is odd; partners would be parted, take an even one.")


def _already_there(folder, description):
    """True when `folder` holds this very data set; BadInput when it holds another."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    there = folder / DESCRIPTION
    if there.is_file() and there.read_text() == _text(description):
        return True
    raise BadInput(f"{folder} holds something else; name a new or an empty folder.")


def make_shapes(world, count, seed, out_dir, size=64, shard_size=4096):
    """Writes the training split of a world as KEY.png, KEY.txt, KEY.json in tar shards.

    No picture has a held-out pair; records 2k and 2k + 1 are hard partners. Equal
    arguments give equal bytes. The folder appears complete or not at all; one that
    already holds this data set is left as it is. Returns the paths of the shards.

    Raises:
        BadInput: an argument out of range, or a folder that holds something else.
    """
    world, folder = world_of(world).name, Path(out_dir)
    fields = ("world", "count", "seed", "size", "shard_size")
    description = dict(zip(fields, (world, count, seed, size, shard_size)))
    _check(description)
    if not _already_there(folder, description):
        part = folder.parent / f".{folder.name}.part-{os.getpid()}"
        try:
            part.mkdir(parents=True)
            _write_all(part, description)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return sorted(folder.glob("*.tar"))
