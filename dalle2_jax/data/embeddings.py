"""Folders of CLIP embeddings in clip-retrieval's layout, read without copying them.

    img_emb/img_emb_{i}.npy  text_emb/text_emb_{i}.npy  metadata/metadata_{i}.parquet

Row k of the three files of a part is one sample; text embeddings, captions or both
accompany the image embeddings. The files may also lie in the folder itself. What is
usable is found in one pass and kept beside each part as NAME.npy.dalle2.idx.
"""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dalle2_jax.data.batches import Batches, order_of
from dalle2_jax.data.embedding_index import Part, index_of_part, open_rows
from dalle2_jax.data.identity import Shard, identity_of, local_sizes
from dalle2_jax.errors import BadInput

KINDS = {  # what is in a part: folder and name, ending
    "image": ("img_emb", "npy"),
    "text": ("text_emb", "npy"),
    "meta": ("metadata", "parquet"),
}
UNIT = 0.02  # norms this close to 1 are those of unit vectors kept in float16


class Encoded(NamedTuple):
    """Samples whose embeddings are known before training; None: not there.

    z_image float32 [b, clip], as stored; tokens int32 [b, n]; z_text float32 [b, clip],
    as stored; image uint8 [b, y, x, 3].
    """

    z_image: np.ndarray
    tokens: np.ndarray | None = None
    z_text: np.ndarray | None = None
    image: np.ndarray | None = None


class Row(NamedTuple):
    """One sample of a folder: float32 [clip] each, z_text and caption may be None."""

    z_image: np.ndarray
    z_text: np.ndarray | None
    caption: str | None


def is_embeddings(path: str | Path) -> bool:
    """Whether a path is a local folder with image embeddings."""
    return isinstance(path, str | Path) and bool(_numbered(Path(path), "image"))


def parts_of(folder: str | Path) -> list[Part]:
    """The parts of a folder, by number.

    Raises:
        BadInput: no image embeddings, or a part lacks a file that others have.
    """
    found = {kind: _numbered(Path(folder), kind) for kind in KINDS}
    if not found["image"]:
        raise BadInput(
            f"{folder} holds no img_emb_0.npy; write embeddings with `dalle2 data "
            "embed` or clip-retrieval."
        )
    for kind in ("text", "meta"):
        lacking = sorted(set(found["image"]) - set(found[kind]))
        if found[kind] and lacking:
            name, ending = KINDS[kind]
            raise BadInput(
                f"{folder} holds no {name} file for {found['image'][lacking[0]].name}; "
                f"give every part its {name}_N.{ending}, or none."
            )
    return [
        Part(path, found["text"].get(number), found["meta"].get(number))
        for number, path in sorted(found["image"].items())
    ]


def _numbered(folder, kind):
    """{number: path} of the files of one kind, in their own folder or this one.

    Raises:
        BadInput: two files have one number.
    """
    name, ending = KINDS[kind]
    pattern = re.compile(rf"{name}_(\d+)\.{ending}")
    paths = [*folder.glob(f"{name}/{name}_*"), *folder.glob(f"{name}_*")]
    matches = ((pattern.fullmatch(path.name), path) for path in sorted(paths))
    found = {}
    for number, path in ((int(match[1]), path) for match, path in matches if match):
        other = found.setdefault(number, path)
        if other != path:
            raise BadInput(
                f"{other} and {path} are both part {number}; rename or remove one."
            )
    return found


class EmbeddingSource(Sequence):
    """Random access to the usable rows of a folder: len(source), source[i] -> Row.

    shards: the image files, first: the first of them; width: of the image embeddings;
    norms: (smallest, largest) length of a usable one; problems: reason -> rows left
    out; has_text, has_captions: what accompanies them.

    Raises:
        BadInput: files that do not belong together or cannot be read, no usable row.
    """

    def __init__(self, folder):
        self.folder, self.parts = Path(folder), parts_of(folder)
        self.shards = [str(part.image) for part in self.parts]
        self.first = self.shards[0]
        with ThreadPoolExecutor(4) as pool:
            self.indices = list(pool.map(index_of_part, self.parts))
        self.starts = np.cumsum([0, *(len(index.rows) for index in self.indices)])
        self.images = [open_rows(part.image) for part in self.parts]
        self.has_text = self.parts[0].text is not None
        self.texts = [open_rows(part.text) for part in self.parts if self.has_text]
        self.has_captions = all(i.captions is not None for i in self.indices)
        self.width = self._one_width()
        self.problems = self._count_problems()
        if not len(self):
            reasons = ", ".join(f"{r}: {n}" for r, n in self.problems.items())
            raise BadInput(f"{folder} holds no usable embedding ({reasons or 'empty'})")
        spans = [index.norms for index in self.indices if len(index.rows)]
        self.norms = min(low for low, _ in spans), max(high for _, high in spans)

    def _one_width(self):
        """The width of all files."""
        first = self.images[0].shape[1]
        for part, image in zip(self.parts, self.images):
            if image.shape[1] != first:
                raise BadInput(
                    f"{part.image} holds embeddings of width {image.shape[1]}, "
                    f"{self.parts[0].image.name} of width {first}; they are not of one "
                    "CLIP."
                )
        for part, text in zip(self.parts, self.texts):
            if text.shape[1] != first:
                raise BadInput(
                    f"{part.text} holds embeddings of width {text.shape[1]}, "
                    f"{part.image.name} of width {first}; they are not of one CLIP."
                )
        return first

    def _count_problems(self):
        counts = {}
        for index in self.indices:
            for reason, number in index.problems.items():
                counts[reason] = counts.get(reason, 0) + number
        return counts

    @property
    def is_unit(self):
        """Whether all rows have length 1, within what float16 keeps."""
        return self.norms[0] > 1 - UNIT and self.norms[1] < 1 + UNIT

    def __repr__(self):
        return f"EmbeddingSource({self.folder}, {len(self)} rows)"

    def __len__(self):
        return int(self.starts[-1])

    def identity(self) -> list[Shard]:
        """The parts, by which the data are recognised; the size is of all its files."""
        sizes = [sum(local_sizes(list(filter(None, part)))) for part in self.parts]
        samples = [len(index.rows) for index in self.indices]
        return identity_of(self.shards, sizes, samples)

    def size_of(self, part):
        """Usable rows of a part."""
        return len(self.indices[part].rows)

    def first_of(self, part):
        """The number of a part's first usable row."""
        return int(self.starts[part])

    def shard_of(self, i):
        """The part that sample i lies in."""
        return int(np.searchsorted(self.starts, i, side="right")) - 1

    def _locate(self, i):
        """Number of the part, of the usable row in it, and of the row in its file."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"row {i} of {len(self)}")
        i %= len(self)
        part = self.shard_of(i)
        usable = i - int(self.starts[part])
        return part, usable, int(self.indices[part].rows[usable])

    def name(self, i):
        """Where sample i lies, for messages: 'FILE: row K'."""
        part, _, row = self._locate(i)
        return f"{self.parts[part].image}: row {row}"

    def __getitem__(self, i):
        part, usable, row = self._locate(i)
        z_image = np.asarray(self.images[part][row], np.float32)
        z_text = self.texts[part][row].astype(np.float32) if self.has_text else None
        return Row(z_image, z_text, self._caption(part, usable))

    def _caption(self, part, usable):
        if not self.has_captions:
            return None
        return self.indices[part].captions[usable].as_py()

    def caption(self, i):
        """The caption of sample i, or None where there are none."""
        part, usable, _ = self._locate(i)
        return self._caption(part, usable)

    def captions(self):
        """Iterates over all captions, in order."""
        return (self.caption(i) for i in range(len(self)))

    def chunks(self, size):
        """Iterates over (z_image, z_text) of up to `size` rows, in order.

        float32 [m, clip] each, as stored; z_text is None where there is none.
        """
        for part, index in enumerate(self.indices):
            for first in range(0, len(index.rows), size):
                chosen = index.rows[first : first + size]
                z_image = self.images[part][chosen].astype(np.float32)
                found = self.texts[part][chosen] if self.has_text else None
                yield z_image, found if found is None else found.astype(np.float32)


class EmbeddingRows:
    """What `Batches` makes its batches from: rows of a folder, nothing to decode.

    tokenizer: for the captions; None: batches hold the text embeddings instead.
    context: tokens of a caption.
    """

    def __init__(self, source, tokenizer, context):
        self.source, self.tokenizer, self.context = source, tokenizer, context
        self.skipped = {}  # the index has left out what is broken

    def batch(self, records):
        """Encoded, one row for each record number."""
        rows = [self.source[record] for record in records]
        z_image = np.stack([row.z_image for row in rows])
        if self.tokenizer is None:
            return Encoded(z_image, z_text=np.stack([row.z_text for row in rows]))
        captions = [row.caption for row in rows]
        return Encoded(z_image, self.tokenizer.encode(captions, self.context))

    def close(self):
        """Nothing is held open that Python does not close."""


def embedding_batches(
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

    tokenizer: None where batches shall hold text embeddings in place of tokens. log:
    not needed, what is left out stands in the source's problems.
    """
    rows = range(batch) if rows is None else rows
    maker = EmbeddingRows(source, tokenizer, data.context)
    order = order_of(source, data, seed)
    return Batches(maker, order, rows, batch, start, data.threads)
