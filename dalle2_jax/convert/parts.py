"""What importers hand over and exporters write: components and foreign files."""

import reprlib
from pathlib import Path
from typing import Any, NamedTuple

from dalle2_jax.components import check_fits, read_json, shapes_of
from dalle2_jax.convert.fields import GROUP, Kind, check_fields
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.errors import BadInput

OPENAI_VOCAB = 49_408  # ids of the vocabulary that published CLIP models share


class Part(NamedTuple):
    """One component of a model directory and the foreign weights that fill it.

    stage, cfg: as in components.STAGES; state: {foreign key: array}; rows: the table;
    where: what errors call the source; noise: Noise or None; sampling: fields of
    unclip.Sampling; ignored: keys without weights; notes: sentences for the user;
    origin: what an export must know to write the same file again.
    """

    stage: str
    cfg: Any
    state: dict
    rows: list
    where: str
    noise: Any = None
    sampling: dict | None = None
    ignored: tuple = ()
    notes: tuple = ()
    origin: dict | None = None


class File(NamedTuple):
    """One file of an export. content: str, a JSON-able dict, or arrays to be written.

    weights: content is a tree of arrays; name is without its ending then.
    """

    name: str
    content: Any
    weights: bool = False
    torch_name: str = ""  # name of the torch file where the family has one of its own


def shapes_for(stage: str, cfg: Any, state: dict, where: object) -> dict:
    """`components.shapes_of`, once the weights are known to be enough for cfg.

    Raises:
        BadInput: more blocks than arrays, or sizes that make no network.
    """
    check_fits(cfg, len(state), where)
    return shapes_of(stage, cfg, where)


def read_config(path: Path) -> dict:
    """The object in a JSON file of a source.

    Raises:
        BadInput: absent, no JSON, or no object.
    """
    return read_json(path, "download it again")


def check_fixed(config, fixed, where):
    """Refuses values with which a foreign config names another network.

    Raises:
        BadInput: names the field.
    """
    for field, value in fixed.items():
        if config.get(field, value) != value:
            raise BadInput(
                f"{where}: {field} is {reprlib.repr(config[field])}; only {value!r} is "
                "supported."
            )


def check_plain(config, fixed, target):
    """Refuses fields of one of our configurations that a format cannot express.

    Raises:
        BadInput: names the field and its value.
    """
    for field, value in fixed.items():
        found = getattr(config, field)
        if found != value:
            raise BadInput(
                f"{target} cannot express {type(config).__name__}.{field} = {found!r} "
                f"(only {value!r})."
            )


MERGES = Kind("a list of pairs of symbols", lambda value: isinstance(value, list))


def read_tokenizer(folder):
    """The CLIP tokenizer of a folder: vocab.json and merges.txt, or tokenizer.json.

    Raises:
        BadInput: neither is there, or it is no CLIP vocabulary.
    """
    folder = Path(folder)
    if (folder / "merges.txt").is_file() or not (folder / "tokenizer.json").is_file():
        return Tokenizer.load(folder)
    where = folder / "tokenizer.json"
    config = read_config(where)
    check_fields(config, {"model": GROUP}, where)
    model = config["model"]
    check_fields(model, {"merges": MERGES, "vocab": GROUP}, f"{where}: model")
    pairs = model["merges"]
    pairs = [pair.split() if isinstance(pair, str) else pair for pair in pairs]
    try:
        made = Tokenizer(pairs)
    except (ValueError, TypeError) as error:
        raise BadInput(f"{where} is no CLIP tokenizer: {error}.") from error
    if model.get("vocab") != made.vocabulary:
        raise BadInput(f"{where} is no CLIP tokenizer: its ids are in another order.")
    return made


def standard_tokenizer(cfg):
    """CLIP's own tokenizer for a ClipConfig of its vocabulary, else None."""
    return Tokenizer.openai() if cfg.text.vocab == OPENAI_VOCAB else None
