"""coco2014-val-30k-v1: zero-shot FID on the user's files of COCO 2014, by fixed rules.

The folder holds val2014/ with its JPEGs and annotations/captions_val2014.json (or the
JSON beside val2014/); a caption file with the columns image_id and text takes the
place of the JSON's captions. The reference is every picture of val2014.
"""

import hashlib
from pathlib import Path

from dalle2_jax.components import read_json
from dalle2_jax.data.text import is_blank, read_rows, trimmed, valid
from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.pictures import folder_pictures

PICTURES = "val2014"
ANNOTATIONS = "captions_val2014.json"
NAME = "COCO_val2014_{:012d}.jpg"
COLUMNS = ("image_id", "text")
ALL = 40_504  # pictures of val2014
RELEASED = "they come from cocodataset.org"


def coco_pictures(folder, size=256, crop="center"):
    """The reference: PictureSet of val2014, in the order of names.

    Raises:
        BadInput: there is no val2014 folder, or it is empty.
    """
    where = Path(folder) / PICTURES
    if not where.is_dir():
        raise BadInput(f"{where} does not exist; put COCO's validation JPEGs there.")
    return folder_pictures(where, size, crop)._replace(name=f"COCO {PICTURES}")


def coco_captions(folder, n, table=None):
    """n captions, of n different pictures.

    From a table its first n rows are taken. From the JSON the pictures are ordered by
    the SHA-256 of their number in decimal, and of each the caption with the smallest
    id is taken: a fixed draw that needs no generator.

    Args:
        folder: COCO's.
        n: how many.
        table: CSV file with the columns image_id and text, or None for the JSON.

    Raises:
        BadInput: a file, column or picture is missing, or there are fewer than n.
    """
    pairs = from_table(table) if table else from_annotations(annotations(folder))
    source = table or ANNOTATIONS
    if len(pairs) < n:
        raise BadInput(f"{source} has {len(pairs)} captions; lower --n from {n}.")
    for number, _ in pairs[:n]:
        path = Path(folder) / PICTURES / NAME.format(number)
        if not path.is_file():
            raise BadInput(f"{path}, named in {source}, does not exist; {RELEASED}.")
    return [text for _, text in pairs[:n]]


def annotations(folder):
    """The path of the caption annotations.

    Raises:
        BadInput: it is not there.
    """
    places = [Path(folder) / "annotations" / ANNOTATIONS, Path(folder) / ANNOTATIONS]
    for path in places:
        if path.is_file():
            return path
    raise BadInput(
        f"{places[0]} does not exist; put COCO's annotations there, or give a caption "
        "file with --captions."
    )


def from_annotations(path: str | Path) -> list[tuple[int, str]]:
    """[(image number, caption)] of the JSON, in the fixed order."""
    found = read_json(path, RELEASED).get("annotations")
    first = {}
    try:
        for entry in found:
            known = first.get(entry["image_id"], entry)
            first[entry["image_id"]] = min(known, entry, key=lambda one: one["id"])
        said = {i: valid(one["caption"]).split() for i, one in first.items()}
        pairs = [(int(i), " ".join(words)) for i, words in said.items()]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise BadInput(
            f"{path} has no annotations of image_id, id and caption; {RELEASED}."
        ) from error
    return sorted(
        pairs, key=lambda pair: hashlib.sha256(str(pair[0]).encode()).digest()
    )


def from_table(path: str | Path) -> list[tuple[int, str]]:
    """[(image number, caption)] of a CSV file with the columns image_id and text.

    Rows with a blank caption are left out.
    """
    number, text = COLUMNS
    rows = [row for row in read_rows(path, COLUMNS) if not is_blank(row[text])]
    try:
        return [(int(row[number]), trimmed(row[text])) for row in rows]
    except ValueError as error:
        raise BadInput(f"{path}: image_id must be whole numbers ({error}).") from error
