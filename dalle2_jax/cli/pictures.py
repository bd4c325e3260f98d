"""Sheets of pictures with their captions."""

import sys

LINES = 4  # of a caption, at most
SHOWN = 8  # characters without a font that are named
SIZE = 11  # of the letters, in pixels
LEADING, ROW_LEADING = 12, 15  # from line to line, of captions and of names of rows


def contact_sheet(pictures, captions, columns, rows=None, side=128):
    """Pictures in a grid with their captions under them.

    Args:
        pictures: uint8 [n, y, x, 3], row after row.
        captions: n strings; an empty one leaves the line blank.
        columns: pictures a row.
        rows: names of the rows, printed at the left, or None.
        side: pixels a picture is shown at; whole multiples keep pixels square.

    Returns:
        uint8 [y, x, 3].
    """
    import numpy as np
    from PIL import Image

    from dalle2_jax.data.lettering import draw_text, lines_of, missing

    margin, gap = (110 if rows else 8), 8
    lines = [lines_of(caption, side // 6)[:LINES] for caption in captions]
    starts = range(0, len(pictures), columns)
    text = [13 * max(map(len, lines[i : i + columns])) + gap for i in starts]
    tops = np.cumsum([gap, *(side + height for height in text)])
    sheet = Image.new("RGB", (margin + columns * (side + gap), int(tops[-1])), "white")
    for i, (picture, words) in enumerate(zip(pictures, lines)):
        x, y = margin + i % columns * (side + gap), int(tops[i // columns])
        shown = Image.fromarray(picture)
        sides = [max(1, round(s * side / max(shown.size))) for s in shown.size]
        shown = shown.resize(sides, Image.Resampling.NEAREST)
        sheet.paste(shown, (x, y))
        for number, line in enumerate(words):
            draw_text(sheet, (x, y + side + 2 + LEADING * number), line, SIZE)
    for top, name in zip(tops, rows or ()):
        for number, line in enumerate(lines_of(name, 16)):
            place = 6, int(top) + side // 2 - 16 + ROW_LEADING * number
            draw_text(sheet, place, line, SIZE)
    if lacking := missing("".join(captions)):
        shown = " ".join(lacking[:SHOWN])
        print(
            f"no font here has {shown}{' ...' if lacking[SHOWN:] else ''}, which the "
            "sheet shows as boxes; install one that has, such as Noto Sans CJK.",
            file=sys.stderr,
        )
    return np.asarray(sheet)
