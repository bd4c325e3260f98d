"""`dalle2 parity`: our models against recorded numbers of the originals."""

from dalle2_jax.cli.flags import local
from dalle2_jax.errors import BadInput, Failed

NAME = "parity"
HELP = "compare our models with recorded outputs of the original implementations"
EXAMPLE = "dalle2 parity tests/parity/data/*_diffusers.safetensors --summary"


def add_arguments(parser):
    """FILE…, --tolerance, --summary."""
    parser.add_argument(
        "files", nargs="+", type=local, metavar="FILE", help="parity files"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-4,
        help="largest error allowed, relative or absolute (1e-4; loops have 1e-2)",
    )
    parser.add_argument(
        "--summary", action="store_true", help="one row per file: its worst output"
    )


def run(args):
    """Prints one row per output, or per file; a file that cannot be compared is said.

    Raises:
        BadInput: files are unreadable or of an unsupported family; the others are
            compared all the same.
        Failed: an output is past the tolerance.
    """
    from dalle2_jax.evaluate.parity import check

    far, not_compared = [], []
    print(f"{'family / output':<52} {'relative':>10} {'largest':>10}")
    for path in args.files:
        try:
            report = check(path, args.tolerance)
        except BadInput as error:
            not_compared.append(path)
            print(error)
            continue
        show(report, args.summary)
        far += [
            f"{report.family} / {d.output}" for d in report.differences if not d.close
        ]
    if far:
        raise Failed(f"{len(far)} outputs differ by more than allowed, first {far[0]}.")
    if not_compared:
        raise BadInput(
            f"{len(not_compared)} of {len(args.files)} files were not compared, first "
            f"{not_compared[0]}; see its line above, or leave it out."
        )


def show(report, summary):
    """The rows of one file: all outputs, or the worst one."""
    rows = report.differences
    if summary:
        rows = [max(rows, key=lambda d: d.relative)]
    for d in rows:
        name = f"{report.family} / {d.output}"
        mark = "" if d.close else "  past the tolerance"
        print(f"{name:<52} {d.relative:>10.2e} {d.largest:>10.2e}{mark}")
    if report.skipped and not summary:
        print(f"{report.family}: not compared: {', '.join(report.skipped)}")
