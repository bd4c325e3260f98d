"""coco2014-val-30k-v1: zero-shot FID on the user's files of COCO 2014, by fixed rules.

The folder holds val2014/ with its JPEGs and annotations/captions_val2014.json (or the
JSON beside val2014/); a caption file with the columns image_id and text takes the
place of the JSON's captions. The reference is every picture of val2014.
"""

import csv
import hashlib
from pathlib import Path

from dalle2_jax.components import read_json
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


def from_annotations(path):
    """[(image number, caption)] of the JSON, in the fixed order."""
    found = read_json(path, RELEASED).get("annotations")
    first = {}
    try:
        for entry in found:
            known = first.get(entry["image_id"], entry)
            first[entry["image_id"]] = min(known, entry, key=lambda one: one["id"])
        pairs = [(int(i), " ".join(one["caption"].split())) for i, one in first.items()]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise BadInput(
            f"{path} has no annotations of image_id, id and caption; {RELEASED}."
        ) from error
    return sorted(
        pairs, key=lambda pair: hashlib.sha256(str(pair[0]).encode()).digest()
    )


def from_table(path):
    """[(image number, caption)] of a CSV file with the columns image_id and text."""
    rows = read_rows(path, COLUMNS)
    try:
        return [(int(row[COLUMNS[0]]), row[COLUMNS[1]]) for row in rows]
    except ValueError as error:
        raise BadInput(f"{path}: image_id must be whole numbers ({error}).") from error


def read_rows(path, columns):
    """The rows of a CSV file as dicts.

    Raises:
        BadInput: it cannot be read or lacks a column; says what it has.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} is no readable CSV file ({error}).") from error
    have = reader.fieldnames or []
    missing = [name for name in columns if name not in have]
    if missing:
        raise BadInput(
            f"{path} has no column {missing[0]}; its first line names "
            f"{', '.join(have) or 'nothing'}."
        )
    if any(row[name] is None for row in rows for name in columns):
        raise BadInput(f"{path} has a row that is cut short; export it again.")
    return rows


def read_captions(path):
    """The captions of a text file, one a line, or of a CSV file's column text."""
    if Path(path).suffix.lower() == ".csv":
        return [row["text"] for row in read_rows(path, ("text",))]
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is no readable text file ({error}).") from error
