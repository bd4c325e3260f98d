"""Seeds of 64 bits: different seeds, different noise; none is taken for another."""

import jax
import numpy as np
import pytest

from dalle2_jax.diffusion.walk import sample_keys, seed_key
from dalle2_jax.errors import BadInput


def words(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


@pytest.mark.parametrize("seed", [0, 5, 2**31, 2**32 - 1, np.int64(7)])
def test_seeds_of_32_bits_keep_their_noise(seed):
    assert words(seed_key(seed)) == words(jax.random.key(np.uint32(seed)))


def test_seeds_that_differ_in_any_bit_have_other_noise():
    seeds = [0, 5, 2**32 - 1, *(2**bit for bit in range(64)), 2**32 + 5, 2**64 - 1]
    assert len({words(seed_key(seed)) for seed in set(seeds)}) == len(set(seeds))
    ours, theirs = (jax.random.key_data(sample_keys(s, 0, 3)) for s in (5, 2**32 + 5))
    assert not np.any(np.all(ours == theirs, axis=1))


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "5", None, True, np.float32(3)])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(BadInput, match="seed"):
        sample_keys(seed, 0, 1)
