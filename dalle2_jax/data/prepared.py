"""Data sets that TensorFlow Datasets prepared as array_record, without TensorFlow.

    tfds:NAME[/CONFIG][:SPLIT]    as tensorflow_datasets finds it (TFDS_DATA_DIR)
    tfds:FOLDER[:SPLIT]           the folder with dataset_info.json

Pictures stay encoded until a batch is made. A sample's caption is its first one, or
tells its label's name; or the feature that is asked for, a label as its number.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dalle2_jax.data.identity import Shard
from dalle2_jax.data.shard_reader import Record
from dalle2_jax.data.text import decode, is_blank, trimmed, valid
from dalle2_jax.errors import BadInput

PREFIX = "tfds:"
NAMED = re.compile(r"((?:\w+://)?[^:]+)(?::(.+))?")
TEXTS = ("caption", "captions", "text")  # features that hold captions, the first is it
FAULTS = (ValueError, AssertionError, OSError, ImportError, NotImplementedError)


def is_prepared(data):
    """Whether --data names a prepared data set: one text that begins with 'tfds:'."""
    one = data[0] if isinstance(data, list | tuple) and len(data) == 1 else data
    return isinstance(one, str) and one.startswith(PREFIX)


def open_prepared(data, how):
    """PreparedSource of --data.

    Raises:
        BadInput: `how` (train.run.Data) asks for what only tar shards have.
    """
    if how.keep or how.shuffle_shards:
        name = "keep" if how.keep else "shuffle_shards"
        raise BadInput(
            f"config.data.{name} is for tar shards; leave it out with {PREFIX}, or "
            "slice the split ('train[:10%]')."
        )
    return PreparedSource(data, how.caption)


class PreparedSource(Sequence):
    """Random access to the samples of a split: len(source), source[i] -> Record.

    Args:
        data: "tfds:NAME:SPLIT"; the split may be sliced, "train[:10%]".
        said: the feature that is the caption; "": captions, or else labels.

    Raises:
        BadInput: not prepared here or in another format, no such split or feature, no
            pictures, or neither captions nor labels.
    """

    def __init__(self, data, said=""):
        self.data = data if isinstance(data, str) else data[0]
        found = NAMED.fullmatch(self.data.removeprefix(PREFIX))
        if not found:
            raise BadInput(f"{self.data} names no data set; write tfds:NAME:SPLIT.")
        name, split = found[1], found[2] or "train"
        builder = _builder(self.data, name)
        images, self.said, self.labels = _features(self.data, builder, said)
        self.image = "image" if "image" in images else images[0]
        self.rows = _rows(self.data, builder, split, images)
        self.full_name = f"{builder.info.full_name}:{split}"  # and not where it lies

    def __repr__(self):
        return f"PreparedSource({self.data}, {len(self)} samples)"

    def __len__(self):
        return len(self.rows)

    def identity(self) -> list[Shard]:
        """One shard, the split, by which the data are recognised."""
        return [Shard(self.full_name, None, len(self))]

    def name(self, i):
        """Where sample i lies, for messages: 'tfds:NAME:SPLIT: I'."""
        return f"{self.data}: {i}"

    def __getitem__(self, i):
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        row = self.rows[i]
        caption = self._caption(row[self.said])
        return Record(str(i), row[self.image], caption, {}, self.data)

    def _caption(self, value):
        if self.labels:
            return f"a photo of {_with_article(self.labels[int(value)])}"
        said = map(trimmed, _texts(value))
        return next((text for text in said if not is_blank(text)), "")

    def caption(self, i):
        """The caption of sample i; "" where it has none."""
        return self._caption(self.rows[i][self.said])

    def captions(self):
        """Iterates over all captions, in order."""
        return (self.caption(i) for i in range(len(self)))


def _texts(value):
    """The strings in what a feature of text, or a sequence of them, gives."""
    if isinstance(value, bytes):
        yield decode(value).text
    elif isinstance(value, str):
        yield valid(value)
    elif isinstance(value, dict):
        yield from _texts(value["text"])
    elif np.ndim(value) == 0:
        yield str(value)
    else:
        for one in value:
            yield from _texts(one)


def _with_article(label):
    """'sea_lion' -> 'a sea lion'."""
    words = label.replace("_", " ").strip()
    return f"{'an' if words[:1].lower() in 'aeiou' else 'a'} {words}"


def _builder(data, name):
    """TFDS's reader of a prepared data set."""
    import tensorflow_datasets as tfds

    name = name if "://" in name else os.path.expanduser(name)
    try:
        if "://" in name or (Path(name) / "dataset_info.json").is_file():
            return tfds.builder_from_directory(name)
        return tfds.builder(name)
    except FAULTS as error:
        raise _not_there(data, name, error) from error


def _not_there(data, name, error):
    reason = str(error).strip().split("\n")[0]
    return BadInput(
        f"{data} cannot be read ({reason}); prepare it once with tfds.builder({name!r},"
        " file_format='array_record').download_and_prepare(), or name its folder."
    )


def _features(data, builder, said):
    """Features with pictures, the one with the caption, and the names of labels."""
    import tensorflow_datasets as tfds

    features = dict(sorted(builder.info.features.items()))
    images = [n for n, f in features.items() if isinstance(f, tfds.features.Image)]
    if said and said not in features:
        raise BadInput(
            f"{data} has {', '.join(features)}, but config.data.caption is {said!r}; "
            "name one of those."
        )
    texts = [said] if said else [n for n in TEXTS if n in features]
    kinds = tfds.features.ClassLabel
    labels = [n for n, f in features.items() if isinstance(f, kinds) and f.names]
    if not images or not texts and not labels:
        raise BadInput(
            f"{data} has {', '.join(features)}; a picture and a caption "
            f"({', '.join(TEXTS)}) or a label are needed."
        )
    if texts:
        return images, texts[0], []
    return images, labels[0], features[labels[0]].names


def _rows(data, builder, split, images):
    """Random access to dicts of features, pictures as encoded bytes."""
    import tensorflow_datasets as tfds

    decoders = {name: tfds.decode.SkipDecoding() for name in images}
    try:
        return builder.as_data_source(split=split, decoders=decoders)
    except FAULTS as error:
        raise _not_there(data, builder.name, error) from error
