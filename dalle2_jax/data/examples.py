"""`examples.txt` of a model directory: a few captions of what it was trained on."""

import itertools
from pathlib import Path

FILE = "examples.txt"
COUNT = 6  # captions that are kept
SEEN = 400  # captions that they are chosen from; neighbours are alike in some data
LONGEST = 90  # characters


def write_examples(folder, captions):
    """Keeps COUNT of the first captions, spread out; writes nothing if there are none.

    folder: the model directory; captions: an iterable of strings.
    """
    some = itertools.islice(captions, SEEN)
    short = dict.fromkeys(" ".join(c.split()) for c in some if 0 < len(c) <= LONGEST)
    chosen = list(short)[:: max(1, len(short) // COUNT)][:COUNT]
    if chosen:
        Path(folder, FILE).write_text("\n".join(chosen) + "\n", encoding="utf-8")


def read_examples(folder):
    """The captions of a model directory's examples.txt, [] where there is none."""
    path = Path(folder, FILE)
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip()[:LONGEST] for line in lines if line.strip()][:COUNT]
