"""`dalle2 study judges`: what a noise-aware CLIP or classifier draws."""

from dalle2_jax.cli.studying import (
    add_common,
    numbers,
    opened,
    print_table,
    save_rows,
    shares,
    write_study,
)


def add_verb(studies):
    """The flags of the study."""
    parser = studies.add_parser(
        "judges", help="what a judge's gradient draws, z_i and caption dropped"
    )
    add_common(parser, n=100)
    parser.add_argument("--scales", default="0,1,3,10", help="of the gradient")
    parser.set_defaults(call=judge_study)


def judge_study(args):
    """A table, JSON with the settings, and a sheet of the first pictures."""
    scales = numbers("--scales", args.scales)
    model, how, wanted = opened(args)
    from dalle2_jax.cli.progress import Progress
    from dalle2_jax.errors import BadInput
    from dalle2_jax.evaluate.attributes import READABLE
    from dalle2_jax.evaluate.judges import drawn_by, judges_of
    from dalle2_jax.evaluate.protocol import model_facts

    if wanted.world not in READABLE:
        worlds = " or ".join(READABLE)
        raise BadInput(f"These pictures cannot be read back; give --world {worlds}.")
    rows, judges = {}, judges_of(model)
    with Progress([("settings", len(judges) * len(scales))]) as progress:
        progress.begin("settings")
        for judge in judges:
            for scale, *found in drawn_by(model, judge, wanted, scales, args.seed, how):
                rows[judge, scale] = found
                progress.show(len(rows), {})
    print_rows(rows)
    facts = model_facts(args.model, model, how, args.seed)
    listed = [{"judge": j, "scale": s, **found} for (j, s), (found, _) in rows.items()]
    about = {"world": wanted.facts, "samples": facts, "decoder_guidance": 0.0}
    write_study(args, about | {"rows": listed})
    if args.out:
        sheet = {f"{j} {s:g}": made for (j, s), (_, made) in rows.items()}
        save_rows(args, sheet, wanted.captions)


def print_rows(rows):
    """Percent right by attribute, with standard errors."""
    first, _ = next(iter(rows.values()))
    names = list(first["accuracy"])
    lines = [
        [judge, f"{scale:g}", *shares(found, names)]
        for (judge, scale), (found, _) in rows.items()
    ]
    note = f"percent right of n = {first['n']}, ± one standard error"
    print_table(["judge", "strength", *names], lines, [note])
