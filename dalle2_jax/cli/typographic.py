"""`dalle2 typographic`: what words on a picture do to CLIP and decoder (unCLIP §4)."""

from dalle2_jax.cli.editing import add_common, count, finish, opened

NAME = "typographic"
HELP = "Write words across a picture; show what CLIP then sees, and variations."
EXAMPLE = (
    'dalle2 typographic apple.png --words "iPod" --labels "an apple" "an iPod"\n'
    "         --model runs/model --out pictures"
)


def add_arguments(parser):
    """The flags of `dalle2 typographic`."""
    add_common(parser)
    parser.add_argument("--words", required=True, help="written across the picture")
    parser.add_argument(
        "--labels", required=True, nargs="+", help="captions to choose from"
    )
    parser.add_argument("--n", type=count, default=4, help="variations")


def run(args):
    """Prints the probabilities of the labels; writes picture and variations."""
    model, image = opened(args)
    from dalle2_jax.probe.typographic import attack

    sheet, chances = attack(model, image, args.words, args.labels, args.n, args.seed)
    for label, (before, after) in chances.items():
        print(f"{label}: {before:.3f} without the words, {after:.3f} with them")
    finish(args, sheet, [args.words, *["variation"] * args.n])
