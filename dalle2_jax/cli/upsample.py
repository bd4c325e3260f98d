"""`dalle2 upsample`: given pictures through the model's upsamplers (unCLIP §2.1)."""

from dalle2_jax.cli.editing import add_common, finish

NAME = "upsample"
HELP = "Enlarge pictures by the model's upsamplers."
EXAMPLE = "dalle2 upsample small.png --model runs/model --out pictures"


def add_arguments(parser):
    """The flags of `dalle2 upsample`."""
    add_common(parser, pictures="+")
    parser.add_argument(
        "--size", type=int, help="pixels it is read at (default: the decoder's)"
    )


def run(args):
    """Writes the enlarged pictures."""
    from dalle2_jax.cli.machine import start_jax
    from dalle2_jax.errors import BadInput

    start_jax()
    import numpy as np

    from dalle2_jax.manipulate.reading import read_picture
    from dalle2_jax.unclip import from_uint8, load, need, sample_keys, upsample

    model = load(args.model)
    need(model, "upsampler")
    side = args.size or model.upsampler.cfg.size // model.upsampler.cfg.factor
    if not 4 <= side <= 1024:
        raise BadInput(f"--size is {side}; take 4 to 1024 pixels.")
    small = np.stack([read_picture(path, side) for path in args.images])
    keys = sample_keys(args.seed, 0, len(small))
    made = upsample(model, from_uint8(small), keys, {})
    finish(args, made, [path.name for path in args.images])
