"""`dalle2 export`: a model directory in the formats of others."""

from dalle2_jax.cli.flags import local

NAME = "export"
HELP = "Write a model directory in the format of another library."
EXAMPLE = "dalle2 export runs/karlo --format diffusers --to karlo-diffusers"


def add_arguments(parser):
    """MODEL, --format, --to, --pt."""
    parser.add_argument("model", type=local, metavar="MODEL", help="model directory")
    parser.add_argument(
        "--format", required=True, help="diffusers, karlo, hf_clip, ..."
    )
    parser.add_argument("--to", required=True, type=local, help="folder, made new")
    parser.add_argument(
        "--pt", action="store_true", help="torch's containers instead of safetensors"
    )


def run(args):
    """Exports; prints the files.

    Raises:
        BadInput: no such format, or one that cannot express the model.
    """
    from dalle2_jax.cli.machine import start_jax
    from dalle2_jax.errors import BadInput

    start_jax()
    from dalle2_jax.convert.exporter import FORMATS, export_weights

    if args.format not in FORMATS:
        known = ", ".join(FORMATS)
        raise BadInput(f"--format must be one of {known}, not {args.format}.")
    for name in export_weights(args.model, args.to, args.format, args.pt):
        print(args.to / name)
