"""What a data source is recognised by: its shards' names, sizes and samples."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from dalle2_jax.data.shard_index import ShardIndex, is_url
from dalle2_jax.errors import BadInput


class Shard(NamedTuple):
    """One shard: name within its data, bytes and samples; None: not known."""

    name: str
    size: int | None
    samples: int | None


def identity_of(
    paths: Sequence[str],
    sizes: Sequence[int | None],
    samples: Sequence[int | None],
) -> list[Shard]:
    """The shards by names that stay the same when their folder is moved as a whole.

    A name is the file's own, with folders below the common one where two share it.
    """
    places = [str(p) if is_url(p) else os.path.abspath(p) for p in paths]
    names = [place.rpartition("/")[2] for place in places]
    if len(set(names)) < len(names):
        parts = [place.split("/") for place in places]
        shared = len(os.path.commonprefix([part[:-1] for part in parts]))
        names = ["/".join(part[shared:]) for part in parts]
    return [Shard(*one) for one in zip(names, sizes, samples)]


def local_sizes(paths: Sequence[str]) -> list[int | None]:
    """Bytes of each file; None for URLs, which would be a request each, and folders.

    A folder's own size changes with files that are no part of the data.

    Raises:
        BadInput: a file is not there.
    """

    def one(path):
        return None if is_url(path) or os.path.isdir(path) else os.stat(path).st_size

    try:
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(one, paths))
    except OSError as error:
        raise BadInput(f"{error.filename} cannot be read ({error.strerror}).") from None


def extent(index: ShardIndex) -> int:
    """Bytes of a shard up to the end of the last member that an index names."""
    spans = (index.pictures, index.texts, index.metas)
    return max((int(s.sum(axis=1).max()) for s in spans if len(s)), default=0)
