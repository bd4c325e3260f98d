"""Text drawn into pictures, each character in the first font that has it.

Pillow's own font comes first, then DejaVu Sans, which matplotlib brings (Latin,
Cyrillic, Greek, Arabic, symbols), then the fonts of this machine.
"""

import functools
import itertools
import textwrap
import unicodedata
from collections.abc import Iterator

import matplotlib
from matplotlib.font_manager import findSystemFonts
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from dalle2_jax.errors import BadInput

DEJAVU = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
COLOUR_SIZE = 109  # the one size of Noto Color Emoji, whose letters are bitmaps
INVISIBLE = ("Cc", "Cf", "Mn", "Me")  # categories: joiners, marks, selectors
FILL = "\ue000"  # takes the second place of a wide character, and is not drawn


def lines_of(text: str, columns: int) -> list[str]:
    """A text broken into lines of at most so many columns; CJK letters take two."""
    wide = "".join(
        f"{c}{FILL}" if unicodedata.east_asian_width(c) in "WF" else c for c in text
    )
    lines = (line.replace(FILL, "") for line in textwrap.wrap(wide, columns))
    return [line for line in lines if line]


def missing(text: str) -> list[str]:
    """The characters of a text that no font here has, each once."""
    return [c for c in dict.fromkeys(text) if _visible(c) and _source(c) is None]


def font_of(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The first font that has every character of a text, at a size in pixels.

    Raises:
        BadInput: there is none here.
    """
    wanted = {ord(c) for c in text if _visible(c)}
    for source in itertools.chain(("", DEJAVU), _machine_fonts()):
        font, scale = _loaded(source, size) or (None, 0)
        if wanted <= _characters(source) and scale == 1:
            return font
    raise BadInput(
        f"no font here has all letters of {text!r}; install one that has, such as Noto "
        "Sans CJK, or take other words."
    )


def draw_text(
    image: Image.Image, place: tuple[float, float], text: str, size: int
) -> None:
    """Draws one line in black, its top left corner at `place`.

    Characters that no font has are boxes.

    Args:
        image: RGB, drawn into.
        place: (x, y) in pixels.
        text: of one line.
        size: of the font, in pixels.
    """
    pen, (x, y) = ImageDraw.Draw(image), place
    for source, run in _runs(text):
        font, scale = _loaded(source, size)
        advance = _advance(run, font, scale)
        if scale == 1:
            pen.text((x, y), run, "black", font)
        else:
            _paste_colours(image, (round(x), round(y)), run, font, scale)
        x += advance


def _paste_colours(image, place, run, font, scale):
    """A run of a font of bitmaps, made smaller."""
    box = font.getbbox(run)
    tile = Image.new("RGBA", (max(1, box[2]), max(1, box[3])))
    ImageDraw.Draw(tile).text((0, 0), run, "black", font, embedded_color=True)
    sides = [max(1, round(side * scale)) for side in tile.size]
    tile = tile.resize(sides, Image.Resampling.LANCZOS)
    image.paste(tile, place, tile)


def _runs(text: str) -> Iterator[tuple[str | None, str]]:
    """(source of the font, characters in a row that are drawn with it)."""
    sources = []
    drawn = [c for c in text if _visible(c)]
    for c in drawn:  # a space has the width of those in the word before it
        sources.append(sources[-1] if c == " " and sources else _source(c))
    pairs = zip(sources, drawn)
    for source, run in itertools.groupby(pairs, lambda pair: pair[0]):
        yield source, "".join(c for _, c in run)


def _visible(c: str) -> bool:
    """Whether a character has a letter of its own; accents of NFD do not."""
    return unicodedata.category(c) not in INVISIBLE


def _advance(run, font, scale):
    return font.getlength(run) * scale


@functools.cache
def _source(c: str) -> str | None:
    """The first font that has a character: "" (Pillow's), a path; None: there is none.

    It is looked for in the machine's fonts where neither of ours has it.
    """
    for source in itertools.chain(("", DEJAVU), _machine_fonts()):
        if ord(c) in _characters(source) and _loaded(source, 11) is not None:
            return source
    return None


@functools.cache
def _machine_fonts() -> list[str]:
    return sorted(findSystemFonts())


@functools.cache
def _characters(source: str) -> frozenset:
    """The code points that a font has; none of a file that is no font."""
    try:
        font = source or ImageFont.load_default(11).path
        return frozenset(FT2Font(font).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@functools.cache
def _loaded(source: str | None, size: int):
    """(font, scale that its letters are drawn at); None where Pillow cannot load it."""
    if not source:
        return ImageFont.load_default(size), 1
    for native, scale in ((size, 1), (COLOUR_SIZE, size / COLOUR_SIZE)):
        try:
            return ImageFont.truetype(source, native), scale
        except OSError:
            continue  # of bitmaps, which are of one size
    return None
