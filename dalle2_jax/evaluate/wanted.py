"""What a study is made on: captions, and real pictures of what they say."""

import hashlib
from typing import Any, NamedTuple

import numpy as np

from dalle2_jax.data.images import decode
from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.write_shapes import evaluation_specs
from dalle2_jax.errors import BadInput

OBJECTS = {"pairs": 2}  # in each picture that judges a model of this world; else any


class Wanted(NamedTuple):
    """n captions and real pictures; in a generated world also what was asked for.

    captions: n strings; images: uint8 [n, y, x, 3]; specs: n Specs or None; world: its
    name or None; facts: JSON-able, which pictures these are.
    """

    captions: list
    images: np.ndarray
    specs: Any
    world: str | None
    facts: dict


def of_world(world, n, seed=0, held_out=True):
    """n specs of a generated world, with pairs that training never shows (held_out)."""
    count = OBJECTS.get(world)
    wanted = evaluation_specs(world, n, seed, held_out, count=count)
    pairs = "held-out" if held_out else "seen"
    facts = _facts(f"world {world}, {pairs} pairs, seed {seed}", wanted.images)
    return Wanted(wanted.captions, wanted.images, wanted.specs, world, facts)


def of_shards(data, n, size):
    """The first n records of tar shards, centre-cut to `size`.

    Raises:
        BadInput: the shards hold fewer than n records.
    """
    source = ShardSource(data)
    if len(source) < n:
        raise BadInput(f"{data} holds {len(source)} records; lower --n from {n}.")
    records = [source[i] for i in range(n)]
    pictures = [decode(r.image, size, f"{r.shard}: {r.key}") for r in records]
    captions = [record.caption for record in records]
    images, name = np.stack(pictures), f"first records of {' '.join(map(str, data))}"
    return Wanted(captions, images, None, None, _facts(name, images))


def _facts(name, images):
    digest = hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()
    return {"name": name, "n": len(images), "sha256": digest}
