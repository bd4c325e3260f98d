"""`dalle2 study manipulations`: what sections 3 and 4 keep and change, counted."""

from dalle2_jax.cli.flags import local, seed
from dalle2_jax.cli.studying import print_table, save_rows, shares, write_study

NUMBERS = {  # of one picture -> column of the table
    "rms": "rms to the given",
    "apart": "rms between two",
    "known_error": "known pixels, worst",
    "fooled_before": "CLIP fooled before",
    "fooled": "CLIP fooled",
}


def add_verb(studies):
    """The flags of the study."""
    parser = studies.add_parser(
        "manipulations", help="3 and 4: what each manipulation keeps and changes"
    )
    parser.add_argument("--model", required=True, type=local, help="model directory")
    parser.add_argument("--world", default="simple", help="simple or pairs")
    parser.add_argument("--n", type=int, default=100, help="pictures")
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--steps", help="of inversions (default: 100)")
    parser.add_argument("--only", help="some of them, with commas between")
    parser.add_argument("--out", type=local, help="folder for JSON and PNG")
    parser.set_defaults(call=manipulation_study)


def manipulation_study(args):
    """A table, JSON with the settings, and a sheet of the first pictures."""
    from dalle2_jax.cli.machine import start_jax

    start_jax()
    from dalle2_jax.cli.progress import Progress
    from dalle2_jax.cli.sample import ways
    from dalle2_jax.evaluate.manipulation_cases import CASES
    from dalle2_jax.evaluate.manipulations import check, judge_manipulations
    from dalle2_jax.evaluate.protocol import model_facts
    from dalle2_jax.manipulate.latent import EXACT, changed
    from dalle2_jax.unclip import load

    names = args.only.split(",") if args.only else tuple(CASES)
    check(args.n, args.world, names)
    model, how = load(args.model), changed(EXACT, steps=args.steps)
    with Progress([("pictures", args.n)]) as progress:
        progress.begin("pictures")
        asked = (model, args.n, args.world, args.seed, how, names)
        rows = judge_manipulations(*asked, lambda done: progress.show(done, {}))
    print_rows(rows)
    facts = model_facts(args.model, model, ways(model, None, None), args.seed)
    facts["inversion"] = str(how)
    found = {name: row.scores for name, row in rows.items()}
    about = {"world": args.world, "n": args.n, "seed": args.seed}
    write_study(args, about | {"samples": facts, "rows": found})
    if args.out:
        save_rows(args, {name: row.pictures for name, row in rows.items()})


def print_rows(rows):
    """Percent right by attribute, and the other numbers, with standard errors."""
    first = max((row.scores["accuracy"] for row in rows.values()), key=len)
    columns = ["", *first, "numbers (levels of 255, shares)"]
    lines = []
    for name, (_, scores) in rows.items():
        numbers = [
            f"{NUMBERS[key]} {mean:.2f} ± {spread:.2f}"
            for key, (mean, spread) in scores["numbers"].items()
        ]
        lines.append([name, *shares(scores, first), ", ".join(numbers)])
    n = next(iter(rows.values())).scores["n"]
    print_table(columns, lines, [f"percent right of n = {n}, ± one standard error"])
