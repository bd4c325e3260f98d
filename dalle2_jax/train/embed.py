"""CLIP embeddings of tar shards, in clip-retrieval's layout, one part for each shard.

    img_emb/img_emb_{i}.npy  text_emb/text_emb_{i}.npy  metadata/metadata_{i}.parquet

Row k of the three files is one sample. The parquet file is written last and says what
the part was made from: a part that is finished is recognised and not made again.
`embeddings.json` names the CLIP.
"""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dalle2_jax.components import params_sha256, read_json, write_json
from dalle2_jax.data.images import decode
from dalle2_jax.data.shard_paths import expand
from dalle2_jax.data.shard_reader import ShardReader
from dalle2_jax.errors import BadInput
from dalle2_jax.files import Lock, replacing
from dalle2_jax.shard.mesh import MeshConfig, batch_sharding, make_mesh, replicated
from dalle2_jax.unclip import encode_captions, encode_images, from_uint8

ABOUT = "embeddings.json"
MARK = b"dalle2_jax"  # key of the parquet file's metadata


class How(NamedTuple):
    """batch: pictures at a time, a multiple of the devices here; dtype: of the files.

    index, count: this process among all; shard i belongs to process i % count.
    """

    batch: int = 256
    dtype: str = "float16"
    index: int = 0
    count: int = 1
    threads: int = 8


USUAL = How()


class PartDone(NamedTuple):
    """One finished part. left_out: reason -> samples; made: False, it was there."""

    shard: str
    rows: int
    left_out: dict
    made: bool


class Paths(NamedTuple):
    """The three files of a part."""

    image: Path
    text: Path
    meta: Path


def paths_of(folder, number, count):
    """The files of part `number` of `count`; the number has as many digits as needed"""
    name = f"{number:0{len(str(count - 1))}d}"
    return Paths(
        Path(folder) / "img_emb" / f"img_emb_{name}.npy",
        Path(folder) / "text_emb" / f"text_emb_{name}.npy",
        Path(folder) / "metadata" / f"metadata_{name}.parquet",
    )


def embed_shards(clip, tokenizer, data, folder, how=USUAL, show=None):
    """Writes the parts that belong to this process.

    Args:
        clip: Component "clip" with both towers.
        tokenizer: Tokenizer.
        data: tar shards, as in `expand`.
        folder: where the parts go; may hold finished ones.
        how: How.
        show: called as show(number of the shard, how many there are, PartDone).

    Returns:
        [PartDone, ...] of this process's shards.

    Raises:
        BadInput: no shards, a folder with embeddings of another CLIP, an unusable How.
    """
    mesh = make_mesh(MeshConfig(), jax.local_devices())
    check(clip, how, mesh)
    shards, folder = expand(data), Path(folder)
    about = describe(clip, how, len(shards))
    claim(folder, about, how)
    reader, encode = ShardReader(shards, most=2), Encoder(clip, tokenizer, how, mesh)
    done = []
    name = f".lock-{how.index}-of-{how.count}"  # they share the folder, but no part
    with Lock(folder, "choose another --to", name) as own:
        for number in range(how.index, len(shards), how.count):
            own.check()
            paths = paths_of(folder, number, len(shards))
            mark = {"clip": about["clip"], "dtype": how.dtype, "shard": shards[number]}
            part = finished(paths, mark)
            if part is None:
                samples = Samples(reader, number, clip.cfg.image.size, how)
                part = make_part(samples, encode, paths, mark)
            done.append(part)
            if show is not None:
                show(number, len(shards), part)
    return done


def check(clip, how, mesh):
    """Refuses a CLIP without pictures, another dtype, a batch that cannot be parted.

    Raises:
        BadInput: says which.
    """
    if clip.cfg.image is None:
        raise BadInput("this CLIP has no image tower; import one that has both towers.")
    if how.dtype not in ("float16", "float32"):
        raise BadInput(f"--dtype is {how.dtype!r}; take float16 or float32.")
    if how.batch < 1 or how.batch % mesh.size:
        raise BadInput(
            f"--batch {how.batch} cannot be split over {mesh.size} devices; take a "
            "multiple."
        )


def describe(clip, how, count):
    """What `embeddings.json` says."""
    return {
        "format": 1,
        "clip": params_sha256(clip.params),
        "width": clip.cfg.clip,
        "unit": clip.cfg.unit,
        "dtype": how.dtype,
        "parts": count,
    }


def claim(folder, about, how):
    """Makes the folder these embeddings' own, or refuses one of others.

    Raises:
        BadInput: it holds embeddings of another CLIP, dtype or number of shards.
    """
    path = folder / ABOUT
    if path.is_file():
        old = read_json(path, "remove the folder or choose another --to")
        other = next((name for name in about if old.get(name) != about[name]), None)
        if other:
            raise BadInput(
                f"{path} has another {other} ({old.get(other)}, here {about[other]}); "
                "choose another --to."
            )
    for kind in paths_of(folder, 0, 1):
        kind.parent.mkdir(parents=True, exist_ok=True)
    if how.index == 0:
        write_json(path, about)


def finished(paths, mark):
    """The PartDone of a part that is there and was made from this, or None."""
    try:
        stored = pq.read_schema(paths.meta).metadata[MARK]
        found = json.loads(stored)
        rows = {len(np.load(path, mmap_mode="r")) for path in paths[:2]}
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    same = all(found.get(name) == value for name, value in mark.items())
    if not same or rows != {found["rows"]}:
        return None
    return PartDone(mark["shard"], found["rows"], found["left_out"], made=False)


class Encoder:
    """images uint8 [m, y, x, 3], captions -> z_i, z_t [m, clip], m <= how.batch.

    They are device arrays, unit vectors where the CLIP's are: nothing waits for them.
    """

    def __init__(self, clip, tokenizer, how, mesh):
        self.width, self.context = clip.cfg.clip, clip.cfg.text.context
        self.tokenizer, self.batch = tokenizer, how.batch
        self.params = jax.device_put(clip.params, replicated(mesh))
        self.layout = batch_sharding(mesh)

        def both(params, image, tokens):
            z_image = encode_images(clip.cfg, params, from_uint8(image))
            return z_image, encode_captions(clip.cfg, params, tokens).pooled

        self.both = jax.jit(both)

    def __call__(self, images, captions):
        image = np.zeros((self.batch, *images[0].shape), np.uint8)
        image[: len(images)] = images
        blank = [""] * (self.batch - len(captions))
        tokens = self.tokenizer.encode([*captions, *blank], self.context)
        z = self.both(self.params, *jax.device_put((image, tokens), self.layout))
        return [x[: len(images)] for x in z]


class Samples:
    """The samples of one shard, decoded in threads, batch by batch.

    left_out: reason -> samples, of the index and of decoding; names: (key, caption) of
    those that were given out.
    """

    def __init__(self, reader, shard, size, how):
        self.reader, self.shard, self.size, self.how = reader, shard, size, how
        self.index = reader.index(shard)
        problems = self.index.problems.items()
        self.left_out = Counter({reason: len(keys) for reason, keys in problems})
        self.names = []

    def __iter__(self):
        rows = range(len(self.index.keys))
        with ThreadPoolExecutor(self.how.threads) as pool:
            for first in range(0, len(rows), self.how.batch):
                chosen = rows[first : first + self.how.batch]
                good = [found for found in pool.map(self._decoded, chosen) if found]
                self.names += [(key, caption) for key, caption, _ in good]
                if good:
                    yield [image for _, _, image in good], [said for _, said, _ in good]

    def _decoded(self, row):
        """(key, caption, picture) of a sample, or None where it cannot be decoded."""
        record = self.reader.record(self.shard, row)
        try:
            return record.key, record.caption, decode(record.image, self.size, "")
        except BadInput as error:
            self.left_out[str(error).strip().rstrip(".")] += 1
            return None


def make_part(samples, encode, paths, mark):
    """Embeds the samples of a shard and writes its part; the parquet file comes last.

    Args:
        samples: Samples.
        encode: Encoder.
        paths: Paths of the part.
        mark: what the part is recognised by.

    Returns:
        PartDone.
    """
    found = [encode(images, captions) for images, captions in samples]
    dtype, width = np.dtype(mark["dtype"]), encode.width
    for kind, path in enumerate(paths[:2]):
        rows = [np.asarray(z[kind], dtype) for z in found]
        _save_rows(path, np.concatenate([np.zeros((0, width), dtype), *rows]))
    keys, captions = zip(*samples.names) if samples.names else ((), ())
    left_out = dict(sorted(samples.left_out.items()))
    said = {**mark, "rows": len(keys), "left_out": left_out}
    columns = {"key": keys, "caption": captions, "shard": [mark["shard"]] * len(keys)}
    table = pa.table({n: pa.array(v, pa.string()) for n, v in columns.items()})
    table = table.replace_schema_metadata({MARK: json.dumps(said)})
    with replacing(paths.meta) as draft:
        pq.write_table(table, draft)
    return PartDone(mark["shard"], len(keys), left_out, made=True)


def _save_rows(path, rows):
    with replacing(path) as draft, draft.open("wb") as out:
        np.save(out, rows, allow_pickle=False)
