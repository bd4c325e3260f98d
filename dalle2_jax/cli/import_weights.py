"""`dalle2 import`: published weights into a model directory."""

from pathlib import Path

NAME = "import"
HELP = "Read published weights into a model directory, strictly or not at all."
EXAMPLE = "dalle2 import karlo-v1-alpha/ --to runs/karlo"


def add_arguments(parser):
    """SRC, --to, --as, --config, --dtype, --dry-run."""
    parser.add_argument("source", type=Path, metavar="SRC", help="file or folder")
    parser.add_argument("--to", required=True, type=Path, help="model directory")
    parser.add_argument("--as", dest="family", help="family; default: recognised")
    parser.add_argument(
        "--config", type=Path, help="JSON with what the source does not say"
    )
    parser.add_argument(
        "--dtype", default="float32", help="float32 (default), bfloat16"
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
    from dalle2_jax.convert.importer import DTYPES, FAMILIES, import_weights
    from dalle2_jax.convert.parts import read_config

    for flag, value, known in (
        ("--as", args.family, (None, *FAMILIES)),
        ("--dtype", args.dtype, DTYPES),
    ):
        if value not in known:
            names = ", ".join(name for name in known if name)
            raise BadInput(f"{flag} must be one of {names}, not {value}.")
    override = read_config(args.config) if args.config else {}
    found = import_weights(
        args.source, args.to, args.family, override, args.dtype, args.dry_run
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
