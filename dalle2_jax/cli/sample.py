"""`dalle2 sample`: captions to pictures."""

import argparse
from pathlib import Path

from dalle2_jax.cli.pictures import (
    EMBEDDINGS,
    PICTURES,
    add_overwrite,
    check_folder,
    contact_sheet,
    ready_folder,
)
from dalle2_jax.cli.ways import (
    FIELDS,
    JUDGES,
    PARTS,
    add_ways,
    ways,
    ways_of,
)

__all__ = ["ways"]  # other verbs take them from here
NAME = "sample"
HELP = "Draw pictures for captions with a model directory."
EXAMPLE = (
    'dalle2 sample --model runs/model "a large red circle" --n 8 --keep 4\n'
    "         --out pictures"
)
TOLD = ("preset", "stages", "dtype", *FIELDS, *JUDGES)  # written into the PNGs


def add_arguments(parser):
    """The flags of `dalle2 sample`."""
    parser.add_argument(
        "captions", nargs="*", help="captions; - reads lines from stdin"
    )
    parser.add_argument(
        "--captions-file",
        type=Path,
        help="a caption per line, or a .csv with a column text",
    )
    parser.add_argument("--model", required=True, type=Path, help="model directory")
    parser.add_argument("--out", required=True, type=Path, help="folder for the PNGs")
    add_overwrite(parser)
    parser.add_argument(
        "--n",
        type=int,
        default=1,
        help="pictures per caption; picture number i of a run, as its file is called, "
        "depends on the caption, the seed and i, so that a caption in another place of "
        "the list is drawn from other noise (see --first)",
    )
    parser.add_argument(
        "--first",
        type=int,
        default=0,
        metavar="I",
        help="number of the first picture: `sample CAPTION --first I` draws picture I "
        "of a longer run alone",
    )
    parser.add_argument(
        "--keep", type=int, help="of the n, those that CLIP finds closest"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--stages", help="the stages to run, e.g. prior,decoder (default: all)"
    )
    parser.add_argument(
        "--embeddings", type=Path, help="z_i [n, clip] as .npy, instead of a prior"
    )
    parser.add_argument(
        "--no-cut", action="store_true", help="refuse captions that are too long"
    )
    parser.add_argument(
        "--decoder-caption",
        action="append",
        help="what the decoder hears instead; one for all, or one per caption",
    )
    parser.add_argument(
        "--label",
        action="append",
        help="class for --classifier-guidance, by name or number; one for all, or one "
        "per caption",
    )
    add_ways(parser)
    add_memory(parser)


def add_memory(parser):
    """The flags on what a stage may take: --batch, --memory, --dtype."""
    group = parser.add_argument_group("memory")
    group.add_argument(
        "--batch",
        type=batch_of,
        default="auto",
        help="pictures per program, or auto: what memory allows, 64 a device at most",
    )
    group.add_argument(
        "--memory", type=float, metavar="GIB", help="of each device (default: free)"
    )
    group.add_argument(
        "--dtype",
        help="bfloat16 or float32: of weights and computation (default: as saved)",
    )


def batch_of(text):
    """ "auto", or a whole number above 0, for argparse."""
    if text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def run(args):
    """Samples; writes one PNG per picture, with its provenance inside, and a grid."""
    from dalle2_jax.cli.machine import start_jax

    captions = captions_of(args)
    check(args, captions)
    names = EMBEDDINGS if stages_of(args.stages) == ["prior"] else PICTURES
    check_folder(args.out, args.overwrite, names)
    start_jax()
    import numpy as np

    from dalle2_jax.unclip import load

    model = load(args.model, args.dtype)
    tell_long(model, captions + (args.decoder_caption or []), args.no_cut)
    how = ways_of(args, model)
    wanted = [caption for caption in captions for _ in range(args.n)]
    chosen = stages_of(args.stages)
    if chosen == ["prior"]:
        save_embeddings(args, model, wanted, how)
        return
    z_image, route = given_embeddings(args.embeddings, chosen, model, len(wanted))
    model = model._replace(**{s: None for s in PARTS[2:] if s not in chosen})
    if "upsampler" not in chosen:
        model = model._replace(upsampler_last=None)
    request = request_of(args, wanted, model)
    pictures = drawn(args, model, request, how, route, z_image)
    save(args, np.arange(len(wanted)), pictures, request, model, how)


def request_of(args, wanted, model):
    """The unclip.Request of the captions, each repeated --n times.

    Raises:
        BadInput: as many other captions or labels were given as fit nothing; guidance
            by a classifier without a label, or a label that it does not know.
    """
    from dalle2_jax.errors import BadInput
    from dalle2_jax.unclip import Request

    given = {"decoder_caption": args.decoder_caption, "label": args.label}
    count = len(wanted) // args.n
    for flag, values in given.items():
        if values is not None and len(values) not in (1, count):
            flag = flag.replace("_", "-")
            raise BadInput(f"--{flag} is given {len(values)} times; once or {count}.")
        if values is not None:
            values = values * count if len(values) == 1 else values
            given[flag] = [value for value in values for _ in range(args.n)]
    if args.classifier_guidance and args.label is None:
        raise BadInput("--classifier-guidance needs a class; give --label N.")
    labels = given["label"] and class_numbers(model, given["label"])
    return Request(wanted, given["decoder_caption"], labels, args.first)


def class_numbers(model, labels):
    """The numbers of classes that are given by name or number.

    Raises:
        BadInput: the model holds no classifier, or it knows no such class.
    """
    from dalle2_jax.data.labels import known_classes
    from dalle2_jax.errors import BadInput
    from dalle2_jax.unclip import need

    need(model, "classifier")
    known = known_classes(model.classifier)
    numbers = {str(i): i for i in range(len(known.names))} | known.numbers
    for label in labels:
        if label not in numbers:
            raise BadInput(
                f"--label {label} is no class of this classifier, which knows "
                f"{known.said()} (0 to {len(known.names) - 1})."
            )
    return [numbers[label] for label in labels]


def drawn(args, model, request, how, route, z_image):
    """All pictures, uint8 [n, y, x, 3], under a progress bar over all stages."""
    import numpy as np

    from dalle2_jax.cascade import costs
    from dalle2_jax.cli.progress import Progress
    from dalle2_jax.unclip import generate

    count, pictures, done = len(request.captions), [], {}
    shares = costs(model, how, route)

    with Progress([("percent", 100)]) as progress:

        def tell(stage, made):
            done[stage] = done.get(stage, 0) + made
            share = sum(shares.get(s, 0) * n / count for s, n in done.items())
            note = f"{stage} {min(done[stage], count)}/{count}"
            progress.show(round(100 * min(share, 1)), {"doing": note})

        progress.begin("percent")
        progress.show(0, {"doing": "clip"})
        batch = fit_of(args)
        parts = generate(model, request, args.seed, batch, how, route, z_image, tell)
        for part in parts:
            pictures += list(part)
    return np.stack(pictures)


def fit_of(args):
    """The `batch` of unclip.generate that the flags ask for."""
    from dalle2_jax.unclip import Fit

    if args.batch != "auto":
        return args.batch
    return Fit(room=None if args.memory is None else int(args.memory * 2**30))


def save(args, numbers, pictures, request, model, how):
    """Writes the pictures, or of each caption's the closest ones, and a grid."""
    from dalle2_jax.data.provenance import save_picture
    from dalle2_jax.unclip import prior_of

    wanted, scores = request.captions, [None] * len(pictures)
    heard = {"decoder_caption": request.decoder_captions, "label": request.labels}
    if args.keep:
        from dalle2_jax.evaluate.clip_score import rerank

        numbers, scores = rerank(model, pictures, wanted, args.n, args.keep)
    settings = {name: getattr(args, name) for name in TOLD}
    told = {name: value for name, value in settings.items() if value is not None}
    unused = {s for s in how if getattr(model, s) is None}
    unused |= {prior_of(model)} if args.embeddings else set()
    told["sampling"] = {s: differing(w) for s, w in how.items() if s not in unused}
    ready_folder(args.out, args.overwrite)
    for index, score in zip(numbers, scores):
        number = args.first + int(index)
        facts = {"caption": wanted[index], "seed": args.seed, "sample": number}
        facts |= {"model": args.model.name, **told}
        facts |= {name: values[index] for name, values in heard.items() if values}
        facts |= {} if score is None else {"clip_score": float(score)}
        save_picture(args.out / f"{number:05d}.png", pictures[index], facts)
    shown = [wanted[index] for index in numbers]
    sheet = contact_sheet(pictures[numbers], shown, max(args.keep or args.n, 4))
    save_picture(args.out / "grid.png", sheet, {"model": args.model.name, **told})
    print(f"{len(numbers)} pictures and grid.png in {args.out}")


def differing(way):
    """The steps and guidance of a Sampling, and what else is not the default."""
    from dalle2_jax.config import plain
    from dalle2_jax.unclip import Sampling

    always, usual = ("steps", "guidance"), plain(Sampling())
    values = plain(way).items()
    return {k: v for k, v in values if k in always or v != usual[k]}


def save_embeddings(args, model, wanted, how):
    """Writes what the prior makes of the captions: z_i.npy, float32 [n, clip]."""
    import numpy as np

    from dalle2_jax.unclip import imagined

    z_image = imagined(model, wanted, args.seed, fit_of(args), how, args.first)
    ready_folder(args.out, args.overwrite, EMBEDDINGS)
    np.save(args.out / "z_i.npy", z_image)
    print(f"{len(z_image)} embeddings in {args.out}/z_i.npy")


def captions_of(args: argparse.Namespace) -> list[str]:
    """The captions of the command line, of a file, or of standard input for a dash.

    Raises:
        BadInput: the file cannot be read.
    """
    import sys

    from dalle2_jax.data.text import is_blank, lines_of, read_captions, valid

    if args.captions == ["-"]:
        words = lines_of(sys.stdin.buffer.read(), "standard input")
    else:
        words = list(map(valid, args.captions))
    if args.captions_file:
        words += read_captions(args.captions_file)
    return [word for word in words if not is_blank(word)]


def check(args, captions):
    """Raises BadInput for usage that cannot give a picture."""
    from dalle2_jax.errors import BadInput

    if not captions:
        raise BadInput('no caption given; write one in quotes, or "-" to read lines.')
    if args.n < 1:
        raise BadInput(f"--n must be at least 1, not {args.n}.")
    if args.first < 0:
        raise BadInput(f"--first must be at least 0, not {args.first}.")
    if args.memory is not None and args.memory <= 0:
        raise BadInput(f"--memory must be above 0 GiB, not {args.memory}.")
    if args.keep is not None and not 1 <= args.keep <= args.n:
        raise BadInput(f"--keep {args.keep} must lie between 1 and --n {args.n}.")
    if args.keep and stages_of(args.stages) == ["prior"]:
        raise BadInput("--keep ranks pictures; --stages prior draws none. Drop one.")


def tell_long(model, captions, refuse):
    """Says which captions are cut to the context; with `refuse` raises BadInput."""
    import sys

    from dalle2_jax.errors import BadInput

    if model.tokenizer is None or model.clip is None:
        return
    context = model.clip.cfg.text.context
    for caption, length in zip(captions, model.tokenizer.lengths(captions)):
        if length > context:
            said = f"{caption[:40]!r}... takes {length} of {context} places"
            if refuse:
                raise BadInput(f"{said}; shorten it, or leave out --no-cut.")
            print(f"{said}; its end is cut off.", file=sys.stderr)


def stages_of(text):
    """["prior", "decoder", ...] of "prior,decoder"; all of them for None.

    Raises:
        BadInput: no such stages, or not one after the other.
    """
    from dalle2_jax.errors import BadInput

    chosen = text.split(",") if text else list(PARTS)
    runs = [list(PARTS[a:b]) for a in range(2) for b in range(a + 1, len(PARTS) + 1)]
    if chosen not in runs:
        raise BadInput(
            f"--stages {text} are no stages in a row; take some of {','.join(PARTS)} "
            "(`dalle2 upsample` begins with pictures)."
        )
    return chosen


def given_embeddings(path, chosen, model, count):
    """(z_i or None, route) of `unclip.draw`.

    Raises:
        BadInput: the file is absent where it is needed, or has another shape.
    """
    import numpy as np

    from dalle2_jax.data.numpy_files import mapped
    from dalle2_jax.errors import BadInput

    if (path is None) != ("prior" in chosen):
        raise BadInput(
            "--embeddings takes the place of the prior: give it with --stages "
            "decoder,..., and not otherwise."
        )
    if path is None:
        return None, "prior"
    z_image = mapped(path)
    expected = (count, model.clip.cfg.clip)
    if z_image.shape != expected:
        raise BadInput(f"{path} is {z_image.shape}; the captions need {expected}.")
    if z_image.dtype.kind != "f" or not np.isfinite(z_image).all():
        raise BadInput(f"{path} holds {z_image.dtype}; embeddings are finite floats.")
    return np.array(z_image, np.float32), "image"
