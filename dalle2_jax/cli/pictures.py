"""Sheets of pictures with their captions, and the folders that both go to."""

import argparse
import re
import sys
from pathlib import Path

from dalle2_jax.errors import BadInput

PICTURES, EMBEDDINGS = r"\d{5,}\.png|grid\.png", r"z_i\.npy"  # what runs write
LINES = 4  # of a caption, at most
SHOWN = 8  # characters without a font that are named
SIZE = 11  # of the letters, in pixels
LEADING, ROW_LEADING = 12, 15  # from line to line, of captions and of names of rows


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """The flag --overwrite of a verb that writes numbered pictures to --out."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="remove the pictures of an earlier run from --out first",
    )


def check_folder(folder: Path, overwrite: bool, names: str = PICTURES) -> None:
    """Refuses a folder that holds what a run would write, before anything is drawn.

    Args:
        folder: --out.
        overwrite: whether what an earlier run has left may be removed.
        names: what is written, a regular expression.

    Raises:
        BadInput: it holds some of an earlier run that may not be removed, or some that
            no run has written.
    """
    found = _earlier(folder, names)
    foreign = [path for path in found if not _is_ours(path)]
    if foreign:
        raise BadInput(
            f"{foreign[0]} was not written by dalle2 and would be written over; choose "
            "another --out."
        )
    if found and not overwrite:
        raise BadInput(
            f"{folder} holds {len(found)} files of an earlier run, {found[0].name} "
            "first; choose another --out, or remove them with --overwrite."
        )


def ready_folder(folder: Path, overwrite: bool, names: str = PICTURES) -> None:
    """Makes a folder, without what an earlier run left; arguments as `check_folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in _earlier(folder, names) if overwrite else ():
        path.unlink()


def _earlier(folder: Path, names: str) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if re.fullmatch(names, path.name))


def _is_ours(path: Path) -> bool:
    """Whether a file is z_i.npy, or a PNG that says what made it."""
    from dalle2_jax.data.images import describe

    if path.suffix == ".npy":
        return True
    try:
        return "dalle2" in describe(path.read_bytes(), str(path)).info
    except BadInput:
        return False


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
