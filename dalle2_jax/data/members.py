"""Tar shards whose samples hold their own z_i, in a member KEY.npy or the like."""

import numpy as np

from dalle2_jax.data.batches import (
    Batches,
    order_of,
    pictures_of,
    threads_of,
    watch,
)
from dalle2_jax.data.embeddings import UNIT, Encoded
from dalle2_jax.data.identity import Shard
from dalle2_jax.data.numpy_files import array_in
from dalle2_jax.data.skipped import Skipped
from dalle2_jax.errors import BadInput

FIRST = 100  # samples of a shard in which a good one must be found


def embedding_of(data: bytes, width: int = 0) -> np.ndarray:
    """The vector in the bytes of a .npy file: float32 [width].

    Args:
        data: bytes; of float [width] or [1, width].
        width: asked for; 0: any.

    Raises:
        BadInput: anything else, zeros, or values that are not finite; begins with a
            verb, for the name of the sample to stand before it.
    """
    try:
        z = array_in(data)
    except ValueError as error:
        raise BadInput("holds an embedding that is no .npy file.") from error
    if z.dtype.kind != "f" or z.size != max(z.shape, default=0):
        raise BadInput(f"holds {z.dtype} {list(z.shape)}, which is no embedding.")
    if width and z.size != width:
        raise BadInput(f"holds an embedding of width {z.size}, not {width}.")
    z = z.reshape(-1).astype(np.float32)
    if not np.isfinite(z).all() or not z.any():
        raise BadInput("holds an embedding of zeros or of values that are not finite.")
    return z


class MemberSource:
    """Shards of which one member of each sample is its embedding.

    first: the name of the first sample that holds one; its width and norms stand for
    all. pictures: whether batches hold those too. problems: none, the shards' own log
    has them.

    Args:
        source: ShardSource or LazyShards of samples that have the member.
        extension: of the member, "npy".
        pictures: bool.

    Raises:
        BadInput: the first samples hold no embedding.
    """

    def __init__(self, source, extension, pictures):
        self.source, self.extension, self.pictures = source, extension, pictures
        self.first, z = self._first()
        self.width, self.norms = z.size, (float(np.linalg.norm(z)),) * 2
        self.is_unit, self.problems = abs(self.norms[0] - 1) < UNIT, {}

    def _first(self):
        """The first embedding that can be read, after its sample's name."""
        source, reason = self.source, ""
        shard = next((s for s in range(len(source.shards)) if source.size_of(s)), None)
        rows = range(0 if shard is None else min(FIRST, source.size_of(shard)))
        for row in rows:
            record = source.first_of(shard) + row
            name = source.name(record)
            try:
                return name, embedding_of(source.member(record, self.extension))
            except BadInput as error:
                reason = reason or f"{name} {error}"
        raise BadInput(
            f"No {self.extension} member of {source!r} holds an embedding "
            f"({reason.rstrip('.') or 'there are none'}); see config.data.embeddings."
        )

    def __repr__(self):
        return f"MemberSource({self.source!r}, {self.extension!r})"

    def identity(self) -> list[Shard]:
        """The shards, by which the data are recognised."""
        return self.source.identity()

    def captions(self):
        """Iterates over all captions, in order."""
        return self.source.captions()

    def embedding(self, record):
        """The embedding of a record, float32 [width]. Raises BadInput, as above."""
        return embedding_of(self.source.member(record, self.extension), self.width)


class MemberRows:
    """Makes batches of Encoded; a broken sample gives way to the next good one.

    Args:
        source: MemberSource.
        order: which record is the next one.
        skipped: Skipped.
        tokenizer, context: as in `samples.Maker`.
        pictures: Pictures, or None where batches hold none.
    """

    def __init__(self, source, order, skipped, tokenizer, context, pictures=None):
        self.source, self.order, self.notes = source, order, skipped
        self.tokenizer, self.context = tokenizer, context
        self.pictures, self.bad = pictures, set()

    @property
    def skipped(self):
        """Reason -> names of the samples that were replaced so far."""
        with self.notes.lock:
            return {r: list(names) for r, names in self.notes.names.items()}

    def batch(self, records):
        """Encoded, one row for each record number."""
        if self.pictures is None:
            found = [self._good(record) for record in records]
            self.notes.good(len(found))
            said = [self.source.source.caption(record) for record, _ in found]
            tokens = self.tokenizer.encode(said, self.context)
            return Encoded(np.stack([z for _, z in found]), tokens)
        while True:
            found = [self._good(record) for record in records]
            wanted = [record for record, _ in found]
            made, records = self.pictures.made(wanted)
            if records == wanted:
                z_image = np.stack([z for _, z in found])
                return Encoded(z_image, made.tokens, image=made.image)

    def _good(self, record):
        """(record, embedding) of this one, or of the next that holds one."""
        found = record
        while True:
            if found not in self.bad:
                try:
                    return found, self.source.embedding(found)
                except BadInput as error:
                    self._leave_out(found, str(error))
            found = self.order.after(found)
            if found == record:
                raise BadInput(f"No embedding can be read; {self.notes.worst()}.")

    def _leave_out(self, record, reason):
        source = self.source.source
        shard, row = source.locate(record)
        key = str(source.reader.index(shard).keys[row])
        self.bad.add(record)
        self.notes.broken(source.shards[shard], key, reason)

    def close(self):
        """Ends worker processes."""
        if self.pictures is not None:
            self.pictures.close()


def member_batches(
    source,
    tokenizer,
    data,
    batch,
    seed,
    start=0,
    rows=None,
    log=None,
):
    """Batches of Encoded; arguments and order as in `batches.captioned_batches`.

    source: MemberSource.
    """
    rows, inner = range(batch) if rows is None else rows, source.source
    skipped = Skipped(data.bad, log)
    order, pictures = order_of(inner, data, seed, watch(inner, skipped)), None
    if source.pictures:
        pictures = pictures_of(inner, tokenizer, data, order, skipped, len(rows))
    made = MemberRows(source, order, skipped, tokenizer, data.context, pictures)
    return Batches(made, order, rows, batch, start, threads_of(data))
