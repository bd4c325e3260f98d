"""`dalle2 upsample`: given pictures through the model's upsamplers (unCLIP §2.1)."""

from dalle2_jax.cli.editing import add_common, finish

NAME = "upsample"
HELP = "Enlarge pictures by the model's upsamplers."
EXAMPLE = (
    "dalle2 upsample small.png --model runs/model --out pictures\n"
    "         dalle2 upsample wide.png --size own --model runs/model --out pictures"
)


def add_arguments(parser):
    """The flags of `dalle2 upsample`."""
    add_common(parser, pictures="+")
    parser.add_argument(
        "--size",
        help="pixels of the square it is read at (default: the decoder's), or own: "
        "as it is, of any shape",
    )


def run(args):
    """Writes the enlarged pictures."""
    from dalle2_jax.cli.machine import start_jax
    from dalle2_jax.cli.pictures import check_folder

    check_folder(args.out, args.overwrite)
    start_jax()
    from dalle2_jax.unclip import (
        load,
        need,
        sample_keys,
        to_uint8,
        upsample,
    )

    model = load(args.model)
    need(model, "upsampler")
    made = []
    for number, small in enumerate(read_all(args, model.upsampler.cfg)):
        keys = sample_keys(args.seed, number, 1)
        made += list(to_uint8(upsample(model, small, keys, {})))
    finish(args, made, [path.name for path in args.images])


def read_all(args, cfg):
    """The pictures as --size asks for them, each uint8 [y, x, 3].

    Raises:
        BadInput: --size is no such size, or a picture cannot be read.
    """
    from dalle2_jax.errors import BadInput
    from dalle2_jax.manipulate.reading import read_picture, read_whole

    if args.size == "own":
        return [read_whole(path) for path in args.images]
    size = args.size or str(cfg.size // cfg.factor)
    if not size.isdecimal() or not 4 <= int(size) <= 1024:
        raise BadInput(f"--size is {size}; take 4 to 1024 pixels, or own.")
    return [read_picture(path, int(size)) for path in args.images]
