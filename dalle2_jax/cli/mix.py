"""`dalle2 mix`: one z_i from several pictures and captions, weighted."""

from dalle2_jax.cli.editing import add_common, count, finish, inverting, opened

NAME = "mix"
HELP = "Draw pictures of a weighted mixture of pictures and captions."
EXAMPLE = (
    'dalle2 mix a.png b.png --caption "a red ring" --weights 1 1 2 --model runs/model\n'
    "         --out pictures"
)


def add_arguments(parser):
    """The flags of `dalle2 mix`."""
    add_common(parser, pictures="*")
    parser.add_argument(
        "--caption", action="append", default=[], help="a caption; may be repeated"
    )
    parser.add_argument(
        "--weights", type=float, nargs="+", help="pictures first (default: all equal)"
    )
    parser.add_argument("--n", type=count, default=4, help="pictures to draw")


def run(args):
    """Writes n pictures of the mixture."""
    model, images = opened(args)
    from dalle2_jax.manipulate.interpolate import mix

    weights = args.weights or [1.0] * (len(images) + len(args.caption))
    how = inverting(args, eta=1.0)
    made = mix(model, images, args.caption, weights, args.n, how, args.seed)
    finish(args, made, [""] * len(made))
