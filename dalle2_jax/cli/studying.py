"""What the studies share: flags, what is opened, tables, and what is written."""

from dalle2_jax.cli.flags import local, seed

SHOWN = 8  # pictures a row of a study's sheet


def add_common(parser, n=200):
    """The flags of every study that draws pictures."""
    parser.add_argument("--model", required=True, type=local, help="model directory")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--world", help="a generated world: simple, pairs or full")
    what.add_argument("--data", nargs="+", help="tar shards: captions and pictures")
    parser.add_argument(
        "--n", type=int, default=n, help="captions (default: %(default)s)"
    )
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--steps", help="per stage, prior/decoder/upsampler")
    parser.add_argument("--guidance", help="per stage, prior/decoder")
    parser.add_argument("--sampler", help="per stage, as of `dalle2 sample`")
    parser.add_argument("--out", type=local, help="folder for JSON and PNG")


def add_features(parser):
    """The flags that choose the space of distances, the model's own CLIP by default."""
    parser.add_argument("--inception", type=local, help="weights: distances are FID")
    parser.add_argument(
        "--resize", default="legacy_tf", help="into Inception (default: %(default)s)"
    )
    parser.add_argument("--features", help="module:function of your own, for distances")


def opened(args):
    """The model, {stage: Sampling}, and the Wanted of the flags.

    Raises:
        BadInput: too few captions, or no such data.
    """
    from dalle2_jax.cli.machine import start_jax
    from dalle2_jax.errors import BadInput

    if args.n < 2:
        raise BadInput(f"--n must be at least 2, not {args.n}.")
    start_jax()
    from dalle2_jax.cli.sample import ways
    from dalle2_jax.evaluate.wanted import of_shards, of_world
    from dalle2_jax.manipulate.reading import picture_side
    from dalle2_jax.unclip import load, need

    model = load(args.model)
    need(model, "clip", "decoder")
    how = ways(model, args.steps, args.guidance, args.sampler)
    if args.world:
        return model, how, of_world(args.world, args.n, args.seed)
    return model, how, of_shards(args.data, args.n, picture_side(model))


def extractor_of(args):
    """The Extractor of the flags of `add_features`; None for the model's own CLIP."""
    from dalle2_jax.errors import BadInput
    from dalle2_jax.evaluate.features import inception_extractor, plugin_extractor

    if args.inception and args.features:
        raise BadInput("--inception and --features both name a space; give one.")
    if args.inception:
        return inception_extractor(args.inception, args.resize)
    return plugin_extractor(args.features) if args.features else None


def numbers(flag, text):
    """[1.0, 1.5] of "1,1.5".

    Raises:
        BadInput: it is no list of finite numbers.
    """
    import math

    from dalle2_jax.errors import BadInput

    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise BadInput(f"{flag} {text} is no list of numbers; write such as 1,1.5,2.")
    return found


def print_table(columns, rows, notes=()):
    """A table on the terminal; a wide one where the output is none."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)


def shares(scores, names):
    """Cells "97 ± 1.7" of attributes, percent right; "" for one that is not asked.

    scores: as from `attributes.accuracy`.
    """
    right, error = scores["accuracy"], scores["standard_error"]
    return [
        f"{100 * right[name]:.0f} ± {100 * error[name]:.1f}" if name in right else ""
        for name in names
    ]


def save_rows(args, rows, captions=()):
    """STUDY.png in --out: the first pictures of every row.

    rows: {name: uint8 [n, y, x, 3]}; captions: printed under the last of them.
    """
    import numpy as np

    from dalle2_jax.cli.pictures import contact_sheet
    from dalle2_jax.data.provenance import save_picture

    shown = min(SHOWN, args.n)
    pictures = np.concatenate([made[:shown] for made in rows.values()])
    below = [*captions[:shown]]
    below = [""] * (len(pictures) - len(below)) + below
    sheet = contact_sheet(pictures, below, shown, list(rows))
    facts = {"model": args.model.name, "seed": args.seed, "study": args.study}
    save_picture(args.out / f"{args.study}.png", sheet, facts)


def space_note(measure):
    """One line on the space of distances, and on how many pictures there are."""
    from dalle2_jax.evaluate.protocol import FEW

    extractor, n = measure.extractor, len(measure.wanted.images)
    own = " (the model's own)" if extractor is measure.clip else ""
    few = f"; {n} pictures: compare only with as many" if n < FEW else ""
    return (
        f"distances in the space of {extractor.name}{own}, resize {extractor.resize}"
        f"{few}; CLIP score: raw cosine in the model's own CLIP"
    )


def notes_of(measure, drawn):
    """Lines under a table: space of distances, reference, what drew the samples.

    measure: Yardstick; drawn: `model_facts`.
    """
    from dalle2_jax import __version__
    from dalle2_jax.cli.score_table import KEY, drawer, stage_lines

    real = measure.wanted.facts
    against = f"{real['n']} real pictures, {real['name']}, {real['sha256'][:KEY]}"
    who = f"{drawer(drawn)}; against {against}; dalle2_jax {__version__}"
    return [space_note(measure), who, *stage_lines(drawn)]


def write_study(args, found):
    """Writes STUDY.json into --out, where it is given."""
    from dalle2_jax.components import write_json

    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write_json(args.out / f"{args.study}.json", {"study": args.study, **found})
        print(f"{args.out / args.study}.json is written")
