"""Text in pictures: every character in a font that has it."""

import numpy as np
import pytest
from PIL import Image

from dalle2_jax.data import lettering
from dalle2_jax.data.lettering import draw_text, font_of, lines_of, missing
from dalle2_jax.errors import BadInput

NOWHERE = "\U000e1234"  # unassigned


def drawn(text):
    image = Image.new("RGB", (200, 20), "white")
    draw_text(image, (2, 2), text, 11)
    return np.asarray(image)


@pytest.mark.parametrize("word", ["Straße", "круг", "café", "κύκλος", "😀", "“a” — b"])
def test_words_of_many_scripts_are_no_boxes(word):
    assert not missing(word)
    letters = [c for c in word if c != " "]
    boxes = drawn("\ufffe")
    assert all(not np.array_equal(drawn(c), boxes) for c in letters)
    assert len({drawn(c).tobytes() for c in letters}) == len(set(letters))


def test_what_no_font_has_is_named_once(monkeypatch):
    monkeypatch.setattr(lettering, "_machine_fonts", list)
    lettering._source.cache_clear()
    assert missing(f"a{NOWHERE}b{NOWHERE}") == [NOWHERE]
    assert (drawn(NOWHERE) < 128).any()  # a box in its place
    with pytest.raises(BadInput, match="font"):
        font_of(f"ring {NOWHERE}", 11)
    lettering._source.cache_clear()


def test_joiners_and_accents_are_no_letters():
    assert not missing("♥\ufe0f a\u200db e\u0301")


def test_a_broken_font_of_the_machine_is_passed_over(tmp_path, monkeypatch):
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    monkeypatch.setattr(lettering, "_machine_fonts", lambda: [str(broken)])
    lettering._source.cache_clear()
    assert missing(NOWHERE) == [NOWHERE]
    lettering._source.cache_clear()


def test_wide_letters_take_two_columns():
    assert lines_of("a large red circle", 8) == ["a large", "red", "circle"]
    text = "一个大的红色圆圈在左边"
    lines = lines_of(text, 8)
    assert "".join(lines) == text and max(map(len, lines)) == 4
    assert lines_of("", 8) == []
