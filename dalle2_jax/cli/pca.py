"""`dalle2 pca`: a picture from more and more of its embedding (unCLIP §4)."""

from dalle2_jax.cli.editing import add_common, finish, inverting, opened

NAME = "pca"
HELP = "Draw a picture from growing numbers of principal components of its z_i."
EXAMPLE = (
    "dalle2 pca cat.png --data 'shards/*.tar' --components 4 16 64\n"
    "         --model runs/model --out pictures"
)
SAMPLE = 4096  # pictures that the axes are fitted to


def add_arguments(parser):
    """The flags of `dalle2 pca`."""
    add_common(parser)
    parser.add_argument("--data", required=True, nargs="+", help="shards for the axes")
    parser.add_argument(
        "--components", type=int, nargs="+", help="default: halves of the width"
    )


def run(args):
    """Writes one picture per number of components."""
    model, image = opened(args)
    import numpy as np

    from dalle2_jax.data.images import decode
    from dalle2_jax.data.records import ShardSource
    from dalle2_jax.evaluate.clip_score import image_features
    from dalle2_jax.probe.pca import pca_reconstructions, principal_axes

    source, side = ShardSource(args.data), model.clip.cfg.image.size
    chosen = range(0, len(source), max(1, len(source) // SAMPLE))
    pictures = [decode(source[i].image, side, source.name(i)) for i in chosen]
    mean, axes = principal_axes(image_features(model.clip, np.stack(pictures)))
    width = len(axes)
    counts = args.components or [width >> k for k in range(width.bit_length())][::-1]
    made = pca_reconstructions(model, image, mean, axes, counts, inverting(args))
    labels = ["given", *(f"{n} of {width}" for n in counts)]
    finish(args, [*image, *made], labels)
