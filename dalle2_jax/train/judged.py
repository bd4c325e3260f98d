"""Numbers of a decoder's running average during training, on pictures of real ones.

The decoder is given z_i and the caption of the first n pictures of a set: what comes
out is compared with them in the space of the CLIP that it hears. No prior takes part,
so these numbers stand beside each other, not beside those of `dalle2 evaluate`.
"""

import jax
import numpy as np
from jax.experimental import multihost_utils

from dalle2_jax.data.batches import Captioned
from dalle2_jax.data.images import decode
from dalle2_jax.data.records import ShardSource
from dalle2_jax.errors import BadInput
from dalle2_jax.shard.mesh import MeshConfig, batch_sharding, make_mesh, replicated
from dalle2_jax.shard.processes import is_first, whole
from dalle2_jax.train.embedded import needed
from dalle2_jax.train.losses import embed
from dalle2_jax.unclip import (
    decoder_condition,
    encode_images,
    from_uint8,
    sample_decoder,
    sample_keys,
    to_uint8,
)

UNIT = 16  # pictures per device and program


def judge_hook(run, work, judge, log):
    """A hook that writes the numbers of `judge`, their names after "evaluate/".

    Args:
        run: Run; its `evaluate` says how often and on what.
        work: fit.Work.
        judge: (z, z_real, z_text), unit vectors [n, clip] of what was drawn, of the
            real pictures and of their captions -> {name: float}.
        log: where process 0 writes metrics.

    Raises:
        BadInput: the set has fewer than n pictures.
    """
    numbers, batch = _share(run, work)
    keys = np.asarray(jax.random.key_data(sample_keys(run.seed, 0, run.evaluate.n)))

    def call(moment):
        ema, lent = whole((moment.state.ema, work.frozen))
        given = (batch.image, batch.tokens, keys[numbers])
        parts = list(_embedded(run, work.clip_cfg, lent, ema, given))
        mine = [np.concatenate(x) for x in zip(*parts)]
        z = [_in_order(x, run.evaluate.n) for x in mine]
        if is_first():
            found = judge(*z)
            log.write(moment.step, {f"evaluate/{k}": v for k, v in found.items()})

    return call


def _share(run, work):
    """Numbers of the samples of this process, equally many each, and their batch."""
    asked, several = run.evaluate, jax.process_count()
    source, said = work.source, run.data.caption
    if asked.data:
        source = ShardSource([asked.data], needed(run), said=said)
    if not hasattr(source, "__len__") or len(source) < asked.n:
        raise BadInput(
            f"config.evaluate.n is {asked.n} and the data hold fewer pictures or are "
            "read as they come; lower it, or name tar shards in config.evaluate.data."
        )
    count = -(-asked.n // several)
    numbers = np.arange(count) * several + jax.process_index()
    numbers = np.minimum(numbers, asked.n - 1)
    records = [source[int(i)] for i in numbers]
    names = [f"{record.shard}: {record.key}" for record in records]
    images = [decode(r.image, run.data.size, name) for r, name in zip(records, names)]
    captions = [record.caption for record in records]
    tokens = work.tokenizer.encode(captions, run.data.context)
    return numbers, Captioned(np.stack(images), np.asarray(tokens, np.int32))


def _embedded(run, clip_cfg, frozen, params, given):
    """Yields (z, z_real, z_text) of parts of the samples, on this process's devices."""
    mesh = make_mesh(MeshConfig(), jax.local_devices())
    split, step = batch_sharding(mesh), UNIT * mesh.size
    params, frozen = jax.device_put((params, frozen), replicated(mesh))
    static = {"cfg": run.model, "noise": run.noise, "how": run.sampling}
    encode = jax.jit(encode_images, static_argnums=0)
    count = len(given[0])
    for first in range(0, count, step):
        rows = np.minimum(np.arange(first, first + step), count - 1)
        image, tokens, keys = jax.device_put([x[rows] for x in given], split)
        caption, z_real = embed(clip_cfg, frozen, Captioned(image, tokens))
        condition = decoder_condition(caption, z_real, clip_cfg.unit)
        keys = jax.random.wrap_key_data(keys)
        made = to_uint8(sample_decoder(params, condition, keys, **static))
        z = encode(clip_cfg, frozen["clip"], from_uint8(jax.device_put(made, split)))
        found = (z, z_real, caption.pooled)
        yield [np.asarray(x)[: count - first] for x in found]


def _in_order(mine, n):
    """Rows of all processes, which took every so-manieth sample: [n, d]."""
    if jax.process_count() == 1:
        return mine
    gathered = multihost_utils.process_allgather(mine)  # float32 stays as it is
    return np.swapaxes(gathered, 0, 1).reshape(-1, mine.shape[1])[:n]
