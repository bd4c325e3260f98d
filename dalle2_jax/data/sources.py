"""What a run's data names: tar shards, few or many, or the generated shapes."""

import os
from itertools import islice
from pathlib import Path

from dalle2_jax.data.lazy_shards import LazyShards
from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.selection import NEED
from dalle2_jax.data.shapes import world_of
from dalle2_jax.data.shard_index import index_of
from dalle2_jax.data.shard_paths import expand
from dalle2_jax.data.stores import in_parallel
from dalle2_jax.errors import BadInput

DEFAULT = "shapes:simple"
COUNT = 24_000  # generated pictures
LOOKED = 100  # samples in which a caption must be found
SMALLEST = 64  # pixels of one
MANY = 1000  # shards from which on they are indexed in turn


def open_shards(paths, data, share=(0, 1), meet=None, need=NEED):
    """The samples of tar shards: ShardSource, or LazyShards where data.index says so.

    Args:
        paths: as in `shard_paths.expand`.
        data: has index ("auto": lazy above MANY shards), keep and caption.
        share: number of this process and of all; each indexes its part of the shards.
        meet: called with a name when it has; waits for the other processes.
        need: what a sample must have, as in `ShardSource`.

    Raises:
        BadInput: no shard, none usable, or a filter or caption that is nowhere.
    """
    shards = expand(paths)
    lazy = {"all": False, "lazy": True, "auto": len(shards) > MANY}[data.index]
    if lazy:
        return _speaking(LazyShards(shards, need, data.keep, data.caption), data)
    if share[1] > 1:
        in_parallel(index_of, shards[share[0] :: share[1]])
        meet("shards indexed")
    return _speaking(ShardSource(shards, need, data.keep, data.caption), data)


def _speaking(source, data):
    """The source, if what data.caption names is in one of its first samples."""
    shards = range(len(source.shards)) if data.caption else ()
    full = next((shard for shard in shards if source.size_of(shard)), None)
    if full is not None and not any(islice(source.captions(), LOOKED)):
        first = source.first_of(full)
        there = ", ".join(source[first].meta) or "nothing"
        raise BadInput(
            f"config.data.caption is {data.caption!r}, which is no text or number in "
            f"the JSON of the first samples, nor a member; {source.name(first)} has "
            f"{there}; name one of those."
        )
    return source


def shapes_named(paths):
    """(world, count) where the data is 'shapes:WORLD[:COUNT]', else None.

    Raises:
        BadInput: no such world, or a count that is no number.
    """
    names = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if len(names) != 1 or not str(names[0]).startswith("shapes:"):
        return None
    _, world, *count = str(names[0]).split(":")
    if len(count) > 1 or count and not count[0].isdigit():
        raise BadInput(
            f"{names[0]} is no generated data set; write shapes:simple, shapes:pairs "
            "or shapes:full, and :COUNT for another number of pictures."
        )
    return world_of(world).name, int(count[0]) if count else COUNT


def shapes_folder(world, count, size, root):
    """Where a generated data set of pictures for `size` px lies, and its pixels."""
    pixels = max(SMALLEST, size)
    return Path(root) / f"{world}-{count}-{pixels}px", pixels
