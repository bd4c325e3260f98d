"""Sheets of pictures with their captions."""

import textwrap

LINES = 4  # of a caption, at most


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
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(11)
    margin, gap = (110 if rows else 8), 8
    lines = [textwrap.wrap(caption, side // 6)[:LINES] for caption in captions]
    starts = range(0, len(pictures), columns)
    text = [13 * max(map(len, lines[i : i + columns])) + gap for i in starts]
    tops = np.cumsum([gap, *(side + height for height in text)])
    sheet = Image.new("RGB", (margin + columns * (side + gap), int(tops[-1])), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (picture, words) in enumerate(zip(pictures, lines)):
        x, y = margin + i % columns * (side + gap), int(tops[i // columns])
        shown = Image.fromarray(picture)
        sides = [max(1, round(s * side / max(shown.size))) for s in shown.size]
        shown = shown.resize(sides, Image.Resampling.NEAREST)
        sheet.paste(shown, (x, y))
        pen.multiline_text(
            (x, y + side + 2), "\n".join(words), "black", font, spacing=1
        )
    for top, name in zip(tops, rows or ()):
        label = "\n".join(textwrap.wrap(name, 16))
        pen.multiline_text((6, int(top) + side // 2 - 16), label, "black", font)
    return np.asarray(sheet)
