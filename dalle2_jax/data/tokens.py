"""CLIP's byte-pair tokens: OpenAI's cleaning, then merges from a vocabulary.

A vocabulary holds 256 byte symbols, the same 256 ending a word, one symbol per merge,
and as its two last ids the start and end marks.
"""

import gzip
import hashlib
import html
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import regex
import tokenizers
from tokenizers import models, pre_tokenizers

from dalle2_jax.data.merges import learn_merges
from dalle2_jax.data.text import is_blank
from dalle2_jax.errors import BadInput

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
OPENAI_FILE = Path(__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
OPENAI_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
OPENAI_MERGES = 48_894
BYTE_SYMBOLS = 512


def _byte_letters():
    """Byte -> a printable letter: itself where printable, else the next from U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    return letters | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


LETTERS = _byte_letters()  # the order of its keys is the order of ids
BYTES = {letter: byte for byte, letter in LETTERS.items()}


def clean(caption):
    """OpenAI's cleaning: encoding mended, HTML unescaped twice, spaces, lower-case."""
    if caption.isascii() and caption.isprintable() and "&" not in caption:
        return " ".join(caption.split()).lower()  # nothing to mend
    caption = caption.encode("utf-8", "replace").decode()  # lone surrogates
    text = html.unescape(html.unescape(ftfy.fix_text(caption)))
    return " ".join(text.split()).lower()


def as_captions(captions: Any, count: int | None = None) -> list[str]:
    """Captions that Python hands over, as a list; one string is one caption.

    Args:
        captions: a string, or an iterable of strings.
        count: how many there must be; None: any number, 0 too.

    Raises:
        BadInput: they are no strings, or not as many.
    """
    one = isinstance(captions, str)
    if not one and (isinstance(captions, bytes) or not isinstance(captions, Iterable)):
        raise BadInput(f"captions are {captions!r}; give a list of strings, or one.")
    found = [captions] if one else list(captions)
    for number, caption in enumerate(found):
        if not isinstance(caption, str):
            raise BadInput(f"caption {number} is {caption!r}; give a string.")
    if count is not None and len(found) != count:
        raise BadInput(f"there are {len(found)} captions; give {count}.")
    return found


def _vocabulary(merges):
    """merges: [(left, right)] -> {symbol: id} in CLIP's order."""
    letters = list(LETTERS.values())
    symbols = letters + [letter + WORD_END for letter in letters]
    symbols += ["".join(merge) for merge in merges] + [START, END]
    vocabulary = {symbol: number for number, symbol in enumerate(symbols)}
    if len(vocabulary) < len(symbols):
        raise ValueError("two merges make the same symbol")
    return vocabulary


def _parse_merges(lines):
    """Lines "left right" below a version line -> [(left, right)]."""
    pairs = [tuple(line.split()) for line in lines[1:] if line.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("a line of merges must be two symbols")
    return pairs


def _engine(vocabulary, merges):
    """The Rust tokenizer, for text that is already clean."""
    bpe = models.BPE(
        vocab=vocabulary,
        merges=merges,
        unk_token=END,
        continuing_subword_prefix="",
        end_of_word_suffix=WORD_END,
    )
    engine = tokenizers.Tokenizer(bpe)
    words = pre_tokenizers.Split(tokenizers.Regex(WORDS), "removed", invert=True)
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    engine.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    engine.add_special_tokens([START, END])
    return engine


class Tokenizer:
    """Captions <-> ids. start, end: ids of the marks; size: number of ids."""

    def __init__(self, merges):
        self.merges = [tuple(pair) for pair in merges]
        self.vocabulary = _vocabulary(self.merges)
        self.start, self.end = self.vocabulary[START], self.vocabulary[END]
        self.size = len(self.vocabulary)
        self._engine = _engine(self.vocabulary, self.merges)

    def __reduce__(self):
        return Tokenizer, (self.merges,)

    @classmethod
    def openai(cls):
        """CLIP's own vocabulary of 49,408 ids."""
        data = OPENAI_FILE.read_bytes()
        if hashlib.sha256(data).hexdigest() != OPENAI_SHA256:
            raise BadInput(f"{OPENAI_FILE} is damaged; install the package again.")
        lines = gzip.decompress(data).decode().split("\n")
        return cls(_parse_merges(lines[: OPENAI_MERGES + 1]))

    @classmethod
    def train(cls, captions, vocab):
        """Learns at most `vocab` ids from captions; fewer where there is less to learn.

        The result depends on the captions alone, not on their order.
        """
        if vocab < BYTE_SYMBOLS + 2:
            least = BYTE_SYMBOLS + 2
            raise BadInput(
                f"A vocabulary of {vocab} ids is too small; take >= {least}."
            )
        counts = {}
        for caption in captions:
            for word in regex.findall(WORDS, clean(caption)):
                counts[word] = counts.get(word, 0) + 1
        symbols = {}
        for word, count in counts.items():
            letters = [LETTERS[byte] for byte in word.encode()]
            symbols[(*letters[:-1], letters[-1] + WORD_END)] = count
        return cls(learn_merges(symbols, vocab - BYTE_SYMBOLS - 2))

    @classmethod
    def load(cls, folder):
        """Reads vocab.json and merges.txt of a folder. Raises BadInput."""
        folder = Path(folder)
        try:
            lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
            there = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
            made = cls(_parse_merges(lines))
        except OSError as error:
            raise BadInput(
                f"{error.filename} cannot be read; a tokenizer is a folder with "
                "vocab.json and merges.txt."
            ) from error
        except ValueError as error:
            raise BadInput(f"The tokenizer in {folder} is damaged: {error}.") from error
        if there != made.vocabulary:
            raise BadInput(
                f"{folder}/vocab.json and merges.txt are not of one CLIP vocabulary; "
                "export the tokenizer again."
            )
        return made

    def save(self, folder):
        """Writes the folder that `load` and other CLIP tokenizers read."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["#version: 0.2", *(" ".join(pair) for pair in self.merges), ""]
        vocabulary = json.dumps(self.vocabulary, ensure_ascii=False)
        marks = {"bos_token": START, "eos_token": END, "unk_token": END}
        about = {"tokenizer_class": "CLIPTokenizer", **marks, "pad_token": END}
        (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
        (folder / "vocab.json").write_text(vocabulary + "\n", encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(
            json.dumps(about, indent=1) + "\n"
        )

    def check(self, caption):
        """Refuses an empty caption. Raises BadInput, which begins with a verb."""
        if is_blank(caption):
            raise BadInput("has no caption.")

    def encode(self, captions, context):
        """Captions (`as_captions`) -> int32 [n, context].

        Start mark, symbols, end mark, zeros; one that is too long is cut, with the
        end mark in the last place.
        """
        captions = as_captions(captions)
        ids = np.zeros((len(captions), context), np.int32)
        cleaned = [clean(caption) for caption in captions]
        made = self._engine.encode_batch(cleaned, add_special_tokens=False)
        for row, encoding in zip(ids, made):
            marked = [self.start, *encoding.ids, self.end]
            row[: len(marked)] = marked[:context]
            row[-1] = self.end if len(marked) > context else row[-1]
        return ids

    def lengths(self, captions):
        """How many places each caption needs, both marks included: int [n]."""
        cleaned = [clean(caption) for caption in as_captions(captions)]
        made = self._engine.encode_batch(cleaned, add_special_tokens=False)
        return np.array([2 + len(encoding.ids) for encoding in made], int)

    def decode(self, ids):
        """The text of one row of ids, between the marks."""
        symbols = {number: symbol for symbol, number in self.vocabulary.items()}
        found = []
        for number in np.asarray(ids).tolist():
            if number == self.end:
                break
            if number != self.start:
                found.append(symbols[number])
        text = "".join(found).replace(WORD_END, " ")
        raw = bytes(BYTES.get(letter, 32) for letter in text)
        return raw.decode("utf-8", errors="replace").strip()

    def mask(self, ids):
        """bool, shaped like ids: True up to and with the first end mark of a row."""
        ended = np.asarray(ids) == self.end
        return np.cumsum(ended, -1) - ended == 0
