"""`dalle2 inpaint`: parts of a picture drawn anew, once or several times in a row."""

from pathlib import Path

from dalle2_jax.cli.editing import add_common, drawing, finish, opened

NAME = "inpaint"
HELP = "Draw the white part of a mask anew, or what lies around a picture."
EXAMPLE = (
    'dalle2 inpaint cat.png --mask hat.png --caption "a cat with a hat"\n'
    "         --model runs/model --out pictures"
)


def add_arguments(parser):
    """The flags of `dalle2 inpaint`."""
    add_common(parser)
    parser.add_argument(
        "--mask", action="append", type=Path, help="picture, white = new; may repeat"
    )
    parser.add_argument(
        "--caption", action="append", default=[], help="one per mask, or one for all"
    )
    parser.add_argument(
        "--around", type=float, metavar="SHARE", help="outpaint by this share a side"
    )
    parser.add_argument(
        "--resample", type=int, default=4, help="walks of each level, 1 = once"
    )


def run(args):
    """Writes the picture as it was read and after every edit."""
    from dalle2_jax.errors import BadInput

    masks = args.mask or []
    if bool(masks) == bool(args.around) or args.resample < 1:
        raise BadInput("give --mask or --around, one of them, and --resample above 0.")
    if len(args.caption) not in (0, 1, len(masks)):
        raise BadInput(f"{len(masks)} masks need as many captions, or one, or none.")
    model, image = opened(args)
    from dalle2_jax.manipulate.inpaint import edits, mask_of, outpaint_canvas
    from dalle2_jax.manipulate.reading import read_mask

    shown, side, captions = [image], image.shape[1], args.caption or [None]
    if masks:
        known = [mask_of(read_mask(path, args.images[0], side)) for path in masks]
    else:
        image, *known = outpaint_canvas(image, args.around)
    captions = captions * (len(known) // len(captions))
    again = args.resample, args.seed, drawing(args, model)
    shown += edits(model, image, list(zip(known, captions, strict=True)), *again)
    labels = ["given", *(caption or "" for caption in captions)]
    finish(args, [picture for (picture,) in shown], labels)
