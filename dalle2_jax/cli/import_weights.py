"""`dalle2 import`: published weights into a model directory."""

from dalle2_jax.cli.flags import local

NAME = "import"
HELP = "Read published weights into a model directory, strictly or not at all."
EXAMPLE = """dalle2 import karlo-v1-alpha/ --to runs/karlo
the network of FID, for dalle2 evaluate --inception:
  dalle2 import pt_inception-2015-12-05-6726825d.pth --to runs/inception.safetensors"""
INCEPTION = "inception"  # a family by itself: one file, no component of a model


def add_arguments(parser):
    """SRC, --to, --as, --config, --dtype, --unpublished and the other switches."""
    parser.add_argument("source", type=local, metavar="SRC", help="file or folder")
    parser.add_argument("--to", required=True, type=local, help="model directory")
    parser.add_argument("--as", dest="family", help="family; default: recognised")
    parser.add_argument(
        "--config", type=local, help="JSON with what the source does not say"
    )
    parser.add_argument(
        "--dtype", default="float32", help="float32 (default), bfloat16"
    )
    parser.add_argument(
        "--unpublished",
        action="store_true",
        help="inception: other weights; their SHA-256 stands beside every number",
    )
    parser.add_argument(
        "--allow-nonfinite",
        action="store_true",
        help="keep weights that are infinite or no numbers; default: refused",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the table, write nothing"
    )


def run(args):
    """Imports; prints one line per component.

    Raises:
        BadInput: whatever is wrong with the source, or with the flags.
    """
    from dalle2_jax.cli.machine import start_jax
    from dalle2_jax.errors import BadInput

    start_jax()
    if INCEPTION in (args.family or args.source.name):
        _inception(args)
        return
    from dalle2_jax.convert.importer import DTYPES, FAMILIES, import_weights
    from dalle2_jax.convert.parts import read_config

    for flag, value, known in (
        ("--as", args.family, (None, *FAMILIES, INCEPTION)),
        ("--dtype", args.dtype, DTYPES),
    ):
        if value not in known:
            names = ", ".join(name for name in known if name)
            raise BadInput(f"{flag} must be one of {names}, not {value}.")
    override = read_config(args.config) if args.config else {}
    found = import_weights(
        args.source,
        args.to,
        args.family,
        override,
        args.dtype,
        args.dry_run,
        args.allow_nonfinite,
    )
    for part in found:
        for row in part.table if args.dry_run else ():
            print(f"{row[0]} -> {part.stage}: {row[1]} {list(row[2])}")
    for part in found:
        kinds = "/".join(part.dtypes)
        kept = "" if kinds == args.dtype else f" kept as {args.dtype}"
        print(f"{part.stage:<14} {part.parameters:>13,} parameters, {kinds}{kept}")
        for note in part.notes:
            print(f"{'':<14} {note}")
    print("nothing written" if args.dry_run else f"model directory {args.to}")


def _inception(args):
    """Checks and converts the network of FID; prints what it is."""
    from dalle2_jax.convert.inception import NAME as PUBLISHED
    from dalle2_jax.evaluate.inception import convert_inception, load_inception

    published, nonfinite = not args.unpublished, args.allow_nonfinite
    if args.dry_run:
        found = load_inception(args.source, published, nonfinite)
    else:
        found = convert_inception(args.source, args.to, published, nonfinite)
    kind = PUBLISHED if found.published else "not the published weights"
    print(f"{INCEPTION:<14} {kind}, SHA-256 {found.sha256}")
    print("nothing written" if args.dry_run else f"weights {args.to}")
