"""`dalle2 study human`: a sheet of pairs for people, and what they answered."""

from dalle2_jax.cli.flags import local, seed
from dalle2_jax.cli.studying import print_table, write_study

SYSTEMS = ("full_stack", "caption_only")


def add_verb(studies):
    """The flags of `dalle2 study human`."""
    parser = studies.add_parser("human", help="5.2: pairs for people, with 95 %% bars")
    parser.add_argument("--model", type=local, help="model directory; it draws both")
    parser.add_argument("--world", help="captions: a generated world")
    parser.add_argument("--data", nargs="+", help="captions: tar shards")
    parser.add_argument(
        "--routes", default=",".join(SYSTEMS), help="the two of one model (%(default)s)"
    )
    parser.add_argument(
        "--pictures",
        nargs=2,
        type=local,
        metavar=("A", "B"),
        help="or two folders of `dalle2 sample`, of the same captions",
    )
    parser.add_argument("--questions", default="photorealism,caption,diversity")
    parser.add_argument("--n", type=int, default=20, help="captions")
    parser.add_argument("--seed", type=seed, default=0, help="of pictures and sides")
    for name in ("steps", "guidance", "sampler"):
        parser.add_argument(f"--{name}", help="as of `dalle2 sample`")
    parser.add_argument(
        "--out", type=local, help="folder: sheet.html, answers.csv, key"
    )
    parser.add_argument("--answers", nargs="+", type=local, help="filled answer sheets")
    parser.add_argument("--key", type=local, help="key.json of that comparison")
    parser.set_defaults(call=human_study)


def human_study(args):
    """Reads answers where they are given; else writes a sheet."""
    (read if args.answers else write)(args)


def read(args):
    """Prints how often each system is preferred, with 95 % bars.

    Raises:
        BadInput: no key, or answers that do not belong to it.
    """
    import numpy as np

    from dalle2_jax.components import read_json
    from dalle2_jax.errors import BadInput
    from dalle2_jax.evaluate.human_pairs import Pair, preference, read_answers

    if args.key is None:
        raise BadInput("--answers needs --key, the key.json written with the sheet.")
    key = read_json(args.key, "it is written beside the sheet")
    pairs = [Pair(**pair) for pair in key["pairs"]]
    votes = {}
    for path in args.answers:
        for question, some in read_answers(path, pairs).items():
            votes.setdefault(question, []).append(some)
    found = {q: preference(np.concatenate(v)) for q, v in votes.items()}
    if not found:
        raise BadInput(f"{args.answers[0]} has no answer yet; fill it in first.")
    first, second = key["systems"]
    rows = [
        [q, f"{100 * f['preference']:.1f} % ± {100 * f['error_95']:.1f} %"]
        + [f"{100 * f['low']:.1f} to {100 * f['high']:.1f} %", str(f["n"])]
        for q, f in found.items()
    ]
    columns = ["question", f"{first} over {second}", "95 % interval (Wilson)", "n"]
    print_table(columns, rows)
    about = {name: key[name] for name in ("systems", "captions", "samples", "version")}
    write_study(args, {"preference": {q: f | about for q, f in found.items()}})


def write(args):
    """Writes sheet.html, answers.csv and key.json into --out.

    Raises:
        BadInput: flags that do not make two systems.
    """
    from dalle2_jax.cli.human_sheet import sheet
    from dalle2_jax.components import write_json
    from dalle2_jax.errors import BadInput
    from dalle2_jax.evaluate.human_pairs import make_pairs, write_template

    if args.out is None or (args.pictures is None) == (args.model is None):
        raise BadInput(
            "a sheet needs --out and either --model or two folders of --pictures; "
            "filled sheets are read with --answers and --key."
        )
    questions = args.questions.split(",")
    make_pairs([], questions)  # refuses unknown ones before anything is drawn
    captions, systems, sides, facts = (_folders if args.pictures else _drawn)(args)
    pairs = make_pairs(captions, questions, args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    write_template(args.out / "answers.csv", pairs)
    key = {"systems": systems, "seed": args.seed, "pairs": [p._asdict() for p in pairs]}
    write_json(args.out / "key.json", key | {"captions": len(captions)} | facts)
    (args.out / "sheet.html").write_text(sheet(pairs, sides), encoding="utf-8")
    print(
        f"{args.out}/sheet.html shows {len(pairs)} pairs; answers go into answers.csv, "
        "key.json says who is who: keep it from those who answer"
    )


def _count(args):
    """Pictures that each side needs of a caption."""
    from dalle2_jax.evaluate.human_pairs import GRID

    return GRID if "diversity" in args.questions.split(",") else 1


def _drawn(args):
    """(captions, names of the systems, pictures of both, facts) of a model."""
    import numpy as np

    from dalle2_jax import __version__
    from dalle2_jax.cli.study_sweep import routes_of_flag
    from dalle2_jax.cli.studying import opened
    from dalle2_jax.errors import BadInput
    from dalle2_jax.evaluate.features import clip_extractor, extract
    from dalle2_jax.evaluate.protocol import model_facts
    from dalle2_jax.evaluate.routes import NAMED, embedding, pictures

    if (args.world is None) == (args.data is None):
        raise BadInput("--model needs captions: give one of --world and --data.")
    model, how, asked = opened(args)
    routes, count = routes_of_flag(args, model), _count(args)
    if len(routes) != 2:
        raise BadInput(f"--routes {args.routes}: a comparison has two, such as a,b.")
    captions = [caption for caption in asked.captions for _ in range(count)]
    real = extract(clip_extractor(model.clip).function, asked.images)["pool"]
    sides = []
    for route in routes:
        z = embedding(model, route, captions, np.repeat(real, count, 0), args.seed, how)
        sides.append(pictures(model, route, captions, z, args.seed, how))
    sides = [
        side.reshape(len(asked.captions), count, *side.shape[1:]) for side in sides
    ]
    samples = model_facts(args.model, model, how, args.seed)
    facts = {"samples": samples, "version": __version__}
    return list(asked.captions), [NAMED[route] for route in routes], sides, facts


def _folders(args):
    """As `_drawn`, of two folders of `dalle2 sample`; captions that both have."""
    from dalle2_jax import __version__
    from dalle2_jax.errors import BadInput
    from dalle2_jax.evaluate.human_pairs import read_folder

    count = _count(args)
    first, second = (read_folder(folder) for folder in args.pictures)
    shared = [c for c in first if len(first[c]) >= count <= len(second.get(c, ()))]
    if not shared:
        one, other = args.pictures
        raise BadInput(
            f"{one} and {other} share no caption with {count} pictures on each side; "
            f"draw both with `dalle2 sample --n {count}` and the same captions."
        )
    captions = shared[: args.n]
    sides = [[held[c][:count] for c in captions] for held in (first, second)]
    names = [folder.name for folder in args.pictures]
    facts = {"samples": [str(name) for name in names], "version": __version__}
    return captions, names, sides, facts
