"""Text of other people's files: encodings, blanks, lines, tables."""

import codecs

import pytest

from dalle2_jax.data.text import decode, is_blank, read_captions, read_rows, trimmed
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.errors import BadInput

SAID = "ein “rotes” Café 赤い丸 🎨"
LATIN = "ein “rotes” Café"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-8"])
def test_a_mark_decides_and_is_no_part_of_the_text(encoding):
    assert decode(SAID.encode(encoding)) == (SAID, True)


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("bits", ["16", "32"])
def test_marks_of_either_byte_order(bits, order):
    mark = getattr(codecs, f"BOM_UTF{bits}_{order.upper()}")
    assert decode(mark + SAID.encode(f"utf-{bits}-{order}")) == (SAID, True)


def test_without_a_mark_utf8_comes_before_cp1252():
    assert decode(LATIN.encode("cp1252")) == (LATIN, False)
    assert decode(b"un caf\xe9") == ("un café", False)
    assert decode("赤い丸".encode()[:-1]) == ("赤い", False)
    assert decode(b"") == ("", True)
    for number in range(256):  # never fails, whatever comes
        decode(bytes([number])), decode(b"\xff\xfe" + bytes([number]))


def test_what_is_read_can_always_be_written():
    for data in (b"\xed\xa0\xbd", b"\xff\xfe\x3d\xd8", b"a\0b", bytes(range(256))):
        text = decode(data).text
        assert "\0" not in text and text.encode("utf-8")


BLANK = ["", " \n", "\u00a0", "\ufeff", "\u200b\u200d", "\u3000", "\u3164", "&nbsp;"]
BLANK += ["&amp;#8203;", "\u2800", "\x01\x1f", "\u00ad", "\ufe0f"]


def test_one_notion_of_blank():
    tokenizer = Tokenizer.train(["a"], 514)
    for text in BLANK:
        assert is_blank(text), ascii(text)
        with pytest.raises(BadInput):
            tokenizer.check(text)
    for text in ("a", "❤️", ".", "&", "\u0301", "猫", "&lt;"):
        assert not is_blank(text), ascii(text)
        tokenizer.check(text)


def test_trimming_leaves_emoji_whole():
    assert trimmed("\ufeff\u00a0 a\u200db \x07\n") == "a\u200db"
    assert trimmed("❤️") == "❤️"


LINES = ["a cat", "one\u2028line", "form\x0cfeed", "ein Café"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_caption_files_have_lines_and_no_blank_ones(tmp_path, end, encoding):
    text = end.join([*LINES[:2], "", " \u200b", *LINES[2:], ""])
    (tmp_path / "c.txt").write_bytes(text.encode(encoding))
    assert read_captions(tmp_path / "c.txt") == LINES


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_give_the_same_captions(tmp_path, end, encoding):
    rows = [f'{i},"{text}"' for i, text in enumerate([*LINES, " "])]
    table = end.join(["id,text", *rows[:2], "", *rows[2:]])
    (tmp_path / "c.CSV").write_bytes(table.encode(encoding))
    assert read_captions(tmp_path / "c.CSV") == LINES
    assert [row["id"] for row in read_rows(tmp_path / "c.CSV", ("id",))] == list(
        "01234"
    )


def test_cp1252_files_are_read_and_told(tmp_path, caplog):
    (tmp_path / "c.txt").write_bytes(LATIN.encode("cp1252"))
    assert read_captions(tmp_path / "c.txt") == [LATIN]
    assert "c.txt" in caplog.text and "UTF-8" in caplog.text


@pytest.mark.parametrize(
    "name, data, word",
    [
        ("c.csv", b"id;text\n1;a cat\n", "semicolons"),
        ("c.csv", b"id\ttext\n1\ta cat\n", "tabs"),
        ("c.csv", b"id,caption\n1,a cat\n", "caption"),
        ("c.csv", b'id,text\n1,"a cat\n2,a dog\n', "c.csv"),  # an open quote
        ("c.csv", b"id,text\n1\n", "cut short"),
        ("c.csv", b"", "nothing"),
        ("c.txt", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "no text"),
        ("absent.txt", None, "absent.txt"),
    ],
)
def test_what_is_no_list_of_captions_is_named(tmp_path, name, data, word):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match=word):
        read_captions(tmp_path / name)
