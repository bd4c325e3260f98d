"""What the verbs that start from a picture share: flags, reading, writing."""

import argparse
from pathlib import Path

from dalle2_jax.cli.pictures import (
    add_overwrite,
    check_folder,
    contact_sheet,
    ready_folder,
)

KINDS = (str, int, float, Path)  # of flags that a picture's provenance names


def add_common(parser, pictures=1):
    """Flags of every such verb; pictures: how many files it takes, or "+" or None."""
    if pictures:
        parser.add_argument("images", nargs=pictures, type=Path, help="PNG, JPEG, WebP")
    parser.add_argument("--model", required=True, type=Path, help="model directory")
    parser.add_argument("--out", required=True, type=Path, help="folder for the PNGs")
    add_overwrite(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--steps", type=str, help="of the decoder (default: 100 where it is inverted)"
    )
    parser.add_argument("--guidance", type=float, help="of the decoder")


def count(text):
    """A whole number above 0, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def opened(args):
    """The model and the pictures, uint8 [n, y, x, 3], of the arguments."""
    from dalle2_jax.cli.machine import start_jax

    check_folder(args.out, args.overwrite)
    start_jax()
    import numpy as np

    from dalle2_jax.manipulate.reading import picture_side, read_picture
    from dalle2_jax.unclip import load, need

    model = load(args.model)
    need(model, "clip", "decoder")
    side = picture_side(model)
    pictures = [read_picture(path, side) for path in getattr(args, "images", ())]
    return model, np.array(pictures, np.uint8).reshape(-1, side, side, 3)


def inverting(args, eta=0.0):
    """The Sampling of a decoder that is run backwards first."""
    from dalle2_jax.manipulate.latent import EXACT, changed

    return changed(EXACT, args.steps, args.guidance, eta=eta)


def drawing(args, model):
    """{stage: Sampling} of a decoder that is only run forwards."""
    from dalle2_jax.manipulate.latent import changed
    from dalle2_jax.unclip import sampling_of

    how = sampling_of(model.decoder)
    return {"decoder": changed(how, args.steps, args.guidance)}


def facts_of(args):
    """The flags of a verb, JSON-able: files by their names alone, no folders."""
    facts = {}
    for flag, value in vars(args).items():
        many = value if isinstance(value, list) else [value]
        if (
            flag not in ("out", "overwrite")
            and many
            and all(isinstance(x, KINDS) for x in many)
        ):
            many = [x.name if isinstance(x, Path) else x for x in many]
            facts[flag] = many if isinstance(value, list) else many[0]
    return facts


def finish(args, pictures, labels, columns=None):
    """Writes NNNNN.png and grid.png, with their provenance, and says where.

    pictures: n of float [y, x, 3] in [-1, 1] or uint8; labels: n words under them.
    """
    import numpy as np

    from dalle2_jax.data.provenance import save_picture
    from dalle2_jax.unclip import to_uint8

    pictures = [
        x if x.dtype == np.uint8 else to_uint8(x) for x in map(np.asarray, pictures)
    ]
    ready_folder(args.out, args.overwrite)
    facts = facts_of(args)
    for index, (picture, label) in enumerate(zip(pictures, labels)):
        about = facts | {"label": label, "sample": index}
        save_picture(args.out / f"{index:05d}.png", picture, about)
    sheet = contact_sheet(pictures, labels, columns or min(len(pictures), 8))
    save_picture(args.out / "grid.png", sheet, facts)
    print(f"{len(pictures)} pictures and grid.png in {args.out}")
