"""The order of samples: a pure function of (seed, number of records, group).

A global sample number counts samples since the start of training over all epochs.
"""

from functools import lru_cache

import numpy as np
from grain.experimental import index_shuffle


@lru_cache(maxsize=64)
def _epoch_seed(seed, epoch):
    """A 32-bit seed of its own for each epoch."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def record_at(number, n, seed, group=1):
    """The record, in 0..n-1, that is global sample `number`.

    Each epoch shows every record once. Groups of `group` consecutive records stay
    together and are permuted anew in each epoch; the n % group left over come last.
    """
    epoch, place = divmod(number, n)
    groups = n // group
    if place >= groups * group:
        return place
    block, offset = divmod(place, group)
    if groups > 1:
        seed = _epoch_seed(seed, epoch)
        block = index_shuffle(block, max_index=groups - 1, seed=seed, rounds=4)
    return block * group + offset
