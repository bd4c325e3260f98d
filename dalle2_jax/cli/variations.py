"""`dalle2 variations`: pictures that share what CLIP sees in one (unCLIP §3.1)."""

from dalle2_jax.cli.editing import add_common, count, finish, inverting, opened

NAME = "variations"
HELP = (
    "Draw variations of a picture: the same z_i and x_T, new noise; or bring it back."
)
EXAMPLE = "dalle2 variations cat.png --model runs/model --n 4 --eta 1 --out pictures"


def add_arguments(parser):
    """The flags of `dalle2 variations`."""
    add_common(parser)
    parser.add_argument("--n", type=count, default=4, help="variations")
    parser.add_argument(
        "--eta",
        type=float,
        default=1.0,
        help="0 reconstructs the picture, 1 keeps only what is in z_i (default)",
    )


def run(args):
    """Writes the picture as it was read and its variations."""
    from dalle2_jax.errors import BadInput

    if not 0 <= args.eta <= 1:
        raise BadInput(f"--eta {args.eta:g} must lie between 0 and 1.")
    model, image = opened(args)
    from dalle2_jax.manipulate.variations import variations

    made = variations(model, image, args.n, args.eta, inverting(args), args.seed)
    labels = ["given", *(f"eta {args.eta:g}" for _ in made)]
    finish(args, [*image, *made], labels)
