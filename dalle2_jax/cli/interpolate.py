"""`dalle2 interpolate`: a row of pictures from one to another (unCLIP §3.2)."""

from dalle2_jax.cli.editing import add_common, count, finish, inverting, opened

NAME = "interpolate"
HELP = "Draw the way from one picture to another, by slerp of z_i and of x_T."
EXAMPLE = "dalle2 interpolate a.png b.png --model runs/model --n 7 --out pictures"


def add_arguments(parser):
    """The flags of `dalle2 interpolate`."""
    add_common(parser, pictures=2)
    parser.add_argument("--n", type=count, default=7, help="pictures, ends included")
    parser.add_argument(
        "--noise",
        default="slerp",
        choices=("slerp", "fixed"),
        help="slerp: the ends are reconstructions; fixed: one x_T for all",
    )


def run(args):
    """Writes the pictures of the way, both ends included."""
    model, images = opened(args)
    from dalle2_jax.manipulate.interpolate import interpolate

    how = inverting(args)
    made = interpolate(model, images, args.n, args.noise, how, args.seed)
    finish(args, made, [f"{i / (args.n - 1):.2f}" for i in range(args.n)])
