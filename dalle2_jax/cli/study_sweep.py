"""`dalle2 study guidance`, `diversity` and `aesthetic`: scores against guidance."""

from dalle2_jax.cli.flags import local
from dalle2_jax.cli.studying import (
    add_common,
    add_features,
    extractor_of,
    notes_of,
    numbers,
    opened,
    print_table,
    write_study,
)

METRICS = {  # of each study, in the order of its table
    "guidance": ("frechet", "clip_score"),
    "diversity": ("recall", "precision", "frechet"),
    "aesthetic": ("aesthetic", "recall"),
}
PANELS = {  # pairs of axes; "scale" is the decoder's guidance
    "guidance": (("scale", "frechet"), ("clip_score", "frechet")),
    "diversity": (("scale", "recall"), ("precision", "recall")),
    "aesthetic": (("scale", "aesthetic"), ("recall", "aesthetic")),
}
ROUTES = {
    "guidance": "full_stack",
    "diversity": "full_stack,caption_only",
    "aesthetic": "full_stack,caption_only",
}
HELP = {
    "guidance": "5.3: Fréchet distance against CLIP score as guidance grows",
    "diversity": "5.3: recall and precision against guidance, unCLIP and caption only",
    "aesthetic": "5.5: predicted aesthetics of samples against guidance",
}


def add_verbs(studies):
    """The flags of the three sweeps."""
    for name, text in HELP.items():
        parser = studies.add_parser(name, help=text)
        add_common(parser)
        add_features(parser)
        parser.add_argument("--scales", default="1,1.5,2,3,4", help="of the decoder")
        parser.add_argument("--prior-scales", help="of the prior (default: its own)")
        parser.add_argument("--seeds", type=int, default=1, help="runs, for error bars")
        parser.add_argument(
            "--routes", default=ROUTES[name], help="(default: %(default)s)"
        )
        if name == "aesthetic":
            _rating_flags(parser)
        parser.set_defaults(call=study)


def _rating_flags(parser):
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--ratings", type=local, help="csv, parquet, npy, npz or AVA.txt"
    )
    which.add_argument("--probe", type=local, help="a linear layer, read from a file")
    parser.add_argument("--images", type=local, help="folder of the rated pictures")


def study(args):
    """Draws at every scale, prints a table, writes JSON and a PNG."""
    scales, prior_scales, seeds = grid_of(args)
    model, how, asked = opened(args)
    from dalle2_jax.cli.progress import Progress
    from dalle2_jax.evaluate.attributes import READABLE
    from dalle2_jax.evaluate.protocol import model_facts
    from dalle2_jax.evaluate.sweep import over_seeds, settings, sweep
    from dalle2_jax.evaluate.yardstick import yardstick

    probe, about = _probe(args, model)
    measure = yardstick(model, asked, extractor_of(args), probe)
    metrics = METRICS[args.study]
    if asked.world in READABLE:
        metrics += ("all_right",)
    chosen, found = settings(routes_of_flag(args, model), scales, prior_scales), []
    with Progress([("settings", len(chosen) * len(seeds))]) as progress:
        progress.begin("settings")
        for one in sweep(model, measure, chosen, seeds, metrics, how):
            found.append(one)
            progress.show(len(found), {})
    rows = over_seeds(found)
    told = notes_of(measure, model_facts(args.model, model, how, args.seed))
    bars = f"± one standard deviation over {len(seeds)} seeds from {args.seed}"
    swept = "guidance of prior and decoder: that of the row, where it names one"
    print_sweep(rows, metrics, [*told, swept, *([bars] if len(seeds) > 1 else [])])
    write_study(args, {"rows": _json(args, model, measure, how, rows, seeds), **about})
    if args.out:
        from dalle2_jax.cli.plots import plot_sweep

        path, title = args.out / f"{args.study}.png", title_of(measure, seeds)
        plot_sweep(path, rows, PANELS[args.study], title)
        print(f"{args.out / args.study}.png is drawn")


def title_of(measure, seeds):
    """What the numbers of a figure were measured on."""
    wanted, space = measure.wanted, measure.extractor
    runs = "1 seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    return (
        f"{wanted.facts['name']}; n = {len(wanted.images)}, {runs}; "
        f"features: {space.name}, resize: {space.resize}"
    )


def grid_of(args):
    """(scales, prior scales, seeds) of the flags.

    Raises:
        BadInput: no numbers, or no seed.
    """
    from dalle2_jax.errors import BadInput

    scales = numbers("--scales", args.scales)
    given = args.prior_scales
    prior_scales = numbers("--prior-scales", given) if given else [None]
    if args.seeds < 1:
        raise BadInput(f"--seeds must be at least 1, not {args.seeds}.")
    return scales, prior_scales, range(args.seed, args.seed + args.seeds)


def routes_of_flag(args, model):
    """The routes of --routes.

    Raises:
        BadInput: the model has no such route.
    """
    from dalle2_jax.errors import BadInput
    from dalle2_jax.evaluate.routes import routes_of

    known, chosen = routes_of(model), args.routes.split(",")
    for route in chosen:
        if route not in known:
            raise BadInput(
                f"--routes {route} is none of this model's routes: {', '.join(known)}."
            )
    return chosen


def _probe(args, model):
    """(Aesthetic or None, facts of it) of the flags; a fitted one is kept in --out."""
    if args.study != "aesthetic":
        return None, {}
    from dalle2_jax.evaluate.aesthetics import load, save
    from dalle2_jax.evaluate.ratings import fit_ratings

    if args.probe:
        return load(args.probe), {"probe": {"file": args.probe.name}}
    probe, share, n = fit_ratings(model.clip, args.ratings, args.images)
    print(f"aesthetic probe: {n} ratings, R^2 of ratings left out {share:.3f}")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        save(args.out / "probe.npz", probe)
    facts = {"file": args.ratings.name, "n": n, "left_out_r_squared": share}
    return probe, {"probe": facts}


def print_sweep(rows, metrics, notes):
    """One row per setting."""
    from dalle2_jax.evaluate.routes import NAMED

    table = []
    for setting, found in rows.items():
        scales = [
            "" if s is None else f"{s:g}" for s in (setting.prior, setting.decoder)
        ]
        table.append(
            [NAMED[setting.route], *scales, *(_cell(found[m]) for m in metrics)]
        )
    print_table(["z_i from", "prior", "decoder", *metrics], table, notes)


def _cell(pair):
    mean, deviation = pair
    return f"{mean:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def _json(args, model, measure, how, rows, seeds):
    """The rows with the provenance of every number."""
    from dalle2_jax.evaluate.protocol import model_facts, number
    from dalle2_jax.evaluate.sweep import guided_by
    from dalle2_jax.evaluate.yardstick import facts

    first = model_facts(args.model, model, how, args.seed)
    listed = []
    for setting, found in rows.items():
        ways = guided_by(model, setting, how)
        said = {
            stage: {k: getattr(way, k) for k in ("sampler", "steps", "guidance")}
            for stage, way in ways.items()
        }
        drawn = {**first, "sampling": said, "seed": list(seeds)}
        drawn["route"] = setting.route
        scores = {
            name: number(mean, facts(measure, name, drawn), deviation)
            for name, (mean, deviation) in found.items()
        }
        listed.append({**setting._asdict(), "scores": scores})
    return listed
