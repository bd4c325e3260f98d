"""`dalle2 image-to-image`: a picture redrawn from a noised version of itself."""

from dalle2_jax.cli.editing import add_common, count, drawing, finish, opened

NAME = "image-to-image"
HELP = "Redraw a picture, more or less freely, with or without a caption."
EXAMPLE = (
    'dalle2 image-to-image sketch.png --caption "a red ring" --strength 0.6\n'
    "         --model runs/model --out pictures"
)


def add_arguments(parser):
    """The flags of `dalle2 image-to-image`."""
    add_common(parser)
    parser.add_argument("--caption", help="what is wanted (default: what CLIP sees)")
    parser.add_argument(
        "--strength", type=float, default=0.6, help="above 0 to 1 = all new"
    )
    parser.add_argument("--n", type=count, default=4, help="pictures to draw")


def run(args):
    """Writes the picture as it was read and n others."""
    model, image = opened(args)
    import numpy as np

    from dalle2_jax.manipulate.inpaint import image_to_image

    many = np.repeat(image, args.n, axis=0)
    captions = [args.caption] * args.n if args.caption else None
    ways = drawing(args, model)
    made = image_to_image(model, many, args.strength, captions, args.seed, ways)
    finish(args, [*image, *made], ["given", *[""] * args.n])
