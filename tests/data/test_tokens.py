"""CLIP's tokens: equal to the recorded ids, and to other tokenizers of the format."""

import html
import json
import pickle
from pathlib import Path

import ftfy
import numpy as np
import pytest

from dalle2_jax.data.merges import learn_merges
from dalle2_jax.data.tokens import END, START, Tokenizer, clean
from dalle2_jax.errors import BadInput

RECORDED = Path(__file__).parents[1] / "parity/data/clip_tokens.json"
CAPTIONS = [
    "a large red circle on the left on white",
    "a small blue ring at the top on a grey background",
    "on black, a large red triangle, don't you see?",
    "ein Bär café 猫 🐻 1234",
]


@pytest.fixture(scope="module")
def openai():
    return Tokenizer.openai()


@pytest.fixture(scope="module")
def trained():
    return Tokenizer.train(CAPTIONS * 3, 600)


def test_the_openai_vocabulary(openai):
    assert (openai.size, openai.start, openai.end) == (49408, 49406, 49407)


def test_every_recorded_caption_has_the_recorded_ids(openai):
    items = json.loads(RECORDED.read_text(encoding="utf-8"))["items"]
    assert len(items) == 100
    ids = openai.encode([item["text"] for item in items], 77)
    assert ids.dtype == np.int32
    for item, row in zip(items, ids):
        assert row.tolist() == item["ids"], item["text"]


def test_a_cut_caption_keeps_its_end(openai):
    ids = openai.encode(["one two three four five six", "one"], 5)
    assert ids[:, 0].tolist() == [openai.start] * 2
    assert ids[0, -1] == openai.end
    assert ids[1].tolist()[2:] == [openai.end, 0, 0]


def test_the_mask_ends_with_the_end_mark(openai):
    ids = openai.encode(["one two", "one two three four five", "", "hi!"], 5)
    rows = openai.mask(ids).sum(-1).tolist()
    assert rows == [4, 5, 2, 4]
    assert openai.mask(ids)[0].tolist() == [True] * 4 + [False]


def test_decoding_returns_the_clean_caption(trained, openai):
    for tokenizer in (trained, openai):
        ids = tokenizer.encode(["A  Large RED circle &amp; café 猫", "", "1 2"], 77)
        said = [tokenizer.decode(row) for row in ids]
        assert said == ["a large red circle & café 猫", "", "1 2"]


def test_training_makes_whole_words_of_frequent_ones(trained):
    assert trained.size <= 600
    ids = trained.encode(["a large red"], 16)
    assert trained.mask(ids).sum() == 5
    assert (trained.start, trained.end) == (trained.size - 2, trained.size - 1)


def test_training_does_not_depend_on_the_order_of_captions(trained):
    again = Tokenizer.train(CAPTIONS[::-1] * 3, 600)
    assert again.merges == trained.merges


def test_a_small_vocabulary_stops_merging():
    assert Tokenizer.train(CAPTIONS, 514).merges == []
    assert Tokenizer.train(CAPTIONS, 530).size == 530
    assert Tokenizer.train(["aa"], 10_000).size == 515
    with pytest.raises(BadInput, match="too small"):
        Tokenizer.train(CAPTIONS, 100)


def slow_merges(words, limit):
    """The definition: count everything anew before every merge."""
    words, merges = {tuple(w): c for w, c in words.items()}, []
    while len(merges) < limit:
        totals = {}
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                totals[pair] = totals.get(pair, 0) + count
        made = {"".join(merge) for merge in merges}
        totals = {p: n for p, n in totals.items() if "".join(p) not in made}
        if not totals:
            break
        pair = min(totals, key=lambda p: (-totals[p], p))
        merges.append(pair)
        joined = {}
        for word, count in words.items():
            symbols, i = [], 0
            while i < len(word):
                hit = word[i : i + 2] == pair
                symbols.append("".join(pair) if hit else word[i])
                i += 2 if hit else 1
            joined[tuple(symbols)] = joined.get(tuple(symbols), 0) + count
        words = joined
    return merges


def test_merges_equal_their_definition():
    rng = np.random.default_rng(0)
    for _ in range(60):
        words = {
            tuple("abc"[i] for i in rng.integers(0, 3, rng.integers(1, 9))): int(c)
            for c in rng.integers(1, 5, 12)
        }
        assert learn_merges(words, 40) == slow_merges(words, 40)


def test_saving_and_loading_changes_nothing(trained, tmp_path):
    trained.save(tmp_path / "t")
    loaded = Tokenizer.load(tmp_path / "t")
    copied = pickle.loads(pickle.dumps(trained))
    for other in (loaded, copied):
        np.testing.assert_array_equal(
            other.encode(CAPTIONS, 24), trained.encode(CAPTIONS, 24)
        )


@pytest.mark.parametrize("name", ["trained", "openai"])
def test_transformers_reads_the_same_ids(name, request, tmp_path):
    transformers = pytest.importorskip("transformers")
    ours = request.getfixturevalue(name)
    ours.save(tmp_path)
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    assert (theirs.bos_token, theirs.eos_token) == (START, END)
    assert len(theirs) == ours.size
    texts = [*CAPTIONS, "what!? it's 100% o'clock", "!"]
    for text, row in zip(texts, ours.encode(texts, 64)):
        assert theirs(text)["input_ids"] == row[ours.mask(row)].tolist()


def test_damaged_folders_are_named(trained, tmp_path):
    with pytest.raises(BadInput, match=r"merges\.txt cannot be read"):
        Tokenizer.load(tmp_path / "none")
    trained.save(tmp_path)
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(BadInput, match="is damaged"):
        Tokenizer.load(tmp_path)
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(BadInput, match="not of one CLIP vocabulary"):
        Tokenizer.load(tmp_path)


def test_one_string_is_one_caption(trained):
    assert np.array_equal(trained.encode("red", 8), trained.encode(["red"], 8))
    assert trained.lengths("red") == trained.lengths(["red"])
    for odd in (b"red", [b"red"], None, 3, [None]):
        with pytest.raises(BadInput, match="caption"):
            trained.encode(odd, 8)


def test_what_needs_no_mending_is_cleaned_as_everything_else():
    rng = np.random.default_rng(0)
    letters = [chr(i) for i in range(256)] + list(" <>&;'amp&lt;\t")
    for _ in range(500):
        text = "".join(rng.choice(letters, rng.integers(1, 12)))
        plain = "".join(c for c in text if c.isascii() and c != "&")
        for caption in (text, plain):
            whole = html.unescape(html.unescape(ftfy.fix_text(caption)))
            assert clean(caption) == " ".join(whole.split()).lower()
