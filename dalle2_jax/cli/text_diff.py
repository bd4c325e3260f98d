"""`dalle2 text-diff`: a picture turned towards another description (unCLIP §3.3)."""

from dalle2_jax.cli.editing import add_common, count, finish, inverting, opened

NAME = "text-diff"
HELP = "Change a picture by the difference of two captions."
EXAMPLE = (
    'dalle2 text-diff cat.png --old "a red circle" --new "a blue circle"\n'
    "         --model runs/model --out pictures"
)


def add_arguments(parser):
    """The flags of `dalle2 text-diff`."""
    add_common(parser)
    parser.add_argument("--new", required=True, help="what the picture is to become")
    parser.add_argument(
        "--old", default="", help='what it is: a caption, "a photo", or nothing'
    )
    parser.add_argument(
        "--theta", type=float, default=0.35, help="how far, 0.25 to 0.5 in the paper"
    )
    parser.add_argument("--n", type=count, default=5, help="pictures on the way")


def run(args):
    """Writes the pictures of the way, theta from 0 on."""
    model, image = opened(args)
    from dalle2_jax.manipulate.text_diff import text_diff

    steps = (args.theta, args.n, inverting(args), args.seed)
    made = text_diff(model, image, args.new, args.old, *steps)
    labels = [f"theta {args.theta * i / (args.n - 1):.2f}" for i in range(args.n)]
    finish(args, made, labels)
