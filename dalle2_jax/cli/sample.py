"""`dalle2 sample`: captions to pictures."""

from pathlib import Path

NAME = "sample"
HELP = "Draw pictures for captions with a model directory."
EXAMPLE = (
    'dalle2 sample --model runs/model "a large red circle" --n 8 --keep 4\n'
    "         --out pictures"
)
PRESETS = {  # steps and guidance of prior/decoder/upsampler/upsampler_2
    "paper": ("64/250/27/15", "1/1.25"),  # unCLIP Table 3, App. C
    "karlo": ("25/50/7", "4/8"),
    "karlo-fast": ("25/25/7", "4/8"),
}
PARTS = ("prior", "decoder", "upsampler", "upsampler_2")


def add_arguments(parser):
    """The flags of `dalle2 sample`."""
    parser.add_argument(
        "captions", nargs="*", help="captions; - reads lines from stdin"
    )
    parser.add_argument("--captions-file", type=Path, help="a caption per line")
    parser.add_argument("--model", required=True, type=Path, help="model directory")
    parser.add_argument("--out", required=True, type=Path, help="folder for the PNGs")
    parser.add_argument("--n", type=int, default=1, help="pictures per caption")
    parser.add_argument(
        "--keep", type=int, help="of the n, those that CLIP finds closest"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=64, help="pictures per program")
    parser.add_argument("--preset", choices=PRESETS, help="steps and guidance by name")
    parser.add_argument(
        "--steps", help="per stage, prior/decoder/upsampler, e.g. 64/250/27"
    )
    parser.add_argument("--guidance", help="per stage, prior/decoder, e.g. 1/1.5")
    parser.add_argument(
        "--sampler",
        help="per stage: ancestral, ddim, dpm or analytic, e.g. analytic/dpm/ddim",
    )
    parser.add_argument(
        "--stages", help="the stages to run, e.g. prior,decoder (default: all)"
    )
    parser.add_argument(
        "--embeddings", type=Path, help="z_i [n, clip] as .npy, instead of a prior"
    )
    parser.add_argument(
        "--no-cut", action="store_true", help="refuse captions that are too long"
    )


def run(args):
    """Samples; writes one PNG per picture, with its provenance inside, and a grid."""
    from dalle2_jax.cli.machine import start_jax

    captions = captions_of(args)
    check(args, captions)
    start_jax()
    import numpy as np

    from dalle2_jax.unclip import load

    model = load(args.model)
    tell_long(model, captions, args.no_cut)
    steps, guidance = PRESETS.get(args.preset, (None, None))
    how = ways(model, args.steps or steps, args.guidance or guidance, args.sampler)
    wanted = [caption for caption in captions for _ in range(args.n)]
    args.out.mkdir(parents=True, exist_ok=True)
    chosen = stages_of(args.stages)
    if chosen == ["prior"]:
        save_embeddings(args, model, wanted, how)
        return
    z_image, route = given_embeddings(args.embeddings, chosen, model, len(wanted))
    model = model._replace(**{s: None for s in PARTS[2:] if s not in chosen})
    if "upsampler" not in chosen:
        model = model._replace(upsampler_last=None)
    pictures = drawn(args, model, wanted, how, route, z_image)
    save(args, np.arange(len(wanted)), pictures, wanted, model)


def drawn(args, model, wanted, how, route, z_image):
    """All pictures, uint8 [n, y, x, 3], under a progress bar."""
    import numpy as np

    from dalle2_jax.cli.progress import Progress
    from dalle2_jax.unclip import generate

    batch, pictures = min(args.batch, len(wanted)), []
    with Progress([("pictures", len(wanted))]) as progress:
        progress.begin("pictures")
        for part in generate(model, wanted, args.seed, batch, how, route, z_image):
            pictures += list(part)
            progress.show(len(pictures), {})
    return np.stack(pictures)


def save(args, numbers, pictures, wanted, model):
    """Writes the pictures, or of each caption's the closest ones, and a grid."""
    from dalle2_jax.cli.pictures import contact_sheet
    from dalle2_jax.data.provenance import save_picture

    scores = [None] * len(pictures)
    if args.keep:
        from dalle2_jax.evaluate.clip_score import rerank

        numbers, scores = rerank(model, pictures, wanted, args.n, args.keep)
    settings = {"steps": args.steps, "guidance": args.guidance, "preset": args.preset}
    settings |= {"sampler": args.sampler, "stages": args.stages}
    told = {name: value for name, value in settings.items() if value is not None}
    for index, score in zip(numbers, scores):
        facts = {"caption": wanted[index], "seed": args.seed, "sample": int(index)}
        facts |= {"model": args.model.name, **told}
        facts |= {} if score is None else {"clip_score": float(score)}
        save_picture(args.out / f"{index:05d}.png", pictures[index], facts)
    shown = [wanted[index] for index in numbers]
    sheet = contact_sheet(pictures[numbers], shown, max(args.keep or args.n, 4))
    save_picture(args.out / "grid.png", sheet, {"model": args.model.name, **told})
    print(f"{len(numbers)} pictures and grid.png in {args.out}")


def save_embeddings(args, model, wanted, how):
    """Writes what the prior makes of the captions: z_i.npy, float32 [n, clip]."""
    import numpy as np

    from dalle2_jax.manipulate.latent import imagine
    from dalle2_jax.unclip import sample_keys

    parts = []
    for first in range(0, len(wanted), args.batch):
        some = wanted[first : first + args.batch]
        keys = sample_keys(args.seed, first, len(some))
        parts.append(np.asarray(imagine(model, some, keys, how)))
    z_image = np.concatenate(parts)
    np.save(args.out / "z_i.npy", z_image)
    print(f"{len(z_image)} embeddings in {args.out}/z_i.npy")


def captions_of(args):
    """The captions of the command line, of a file, or of standard input for a dash.

    Raises:
        BadInput: the file cannot be read.
    """
    import sys

    from dalle2_jax.errors import BadInput

    words = list(args.captions)
    if args.captions_file:
        try:
            words += args.captions_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{args.captions_file} is no text file: {error}.") from error
    if words == ["-"]:
        words = [line.strip() for line in sys.stdin]
    return [word for word in words if word.strip()]


def check(args, captions):
    """Raises BadInput for usage that cannot give a picture."""
    from dalle2_jax.errors import BadInput

    if not captions:
        raise BadInput('no caption given; write one in quotes, or "-" to read lines.')
    for name in ("n", "batch"):
        if getattr(args, name) < 1:
            raise BadInput(f"--{name} must be at least 1, not {getattr(args, name)}.")
    if args.keep is not None and not 1 <= args.keep <= args.n:
        raise BadInput(f"--keep {args.keep} must lie between 1 and --n {args.n}.")


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

    from dalle2_jax.errors import BadInput

    if (path is None) != ("prior" in chosen):
        raise BadInput(
            "--embeddings takes the place of the prior: give it with --stages "
            "decoder,..., and not otherwise."
        )
    if path is None:
        return None, "prior"
    try:
        z_image = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is no .npy file of numbers ({error}).") from error
    expected = (count, model.clip.cfg.clip)
    if z_image.shape != expected:
        raise BadInput(f"{path} is {z_image.shape}; the captions need {expected}.")
    return z_image.astype(np.float32), "image"


def ways(model, steps, guidance, sampler=None):
    """{stage: Sampling} from "64/250/27" and "1/1.5"; what is not given stays.

    Raises:
        BadInput: more values than stages, or one that cannot be.
    """
    from dalle2_jax.errors import BadInput
    from dalle2_jax.unclip import prior_of, sampling_of

    stages = (prior_of(model), *PARTS[1:])
    parts = {s: getattr(model, s) for s in stages if getattr(model, s) is not None}
    how = {stage: sampling_of(part) for stage, part in parts.items()}
    given = {"steps": (steps, str), "guidance": (guidance, float)}
    for field, (text, kind) in (given | {"sampler": (sampler, str)}).items():
        values = text.split("/") if text else ()
        if len(values) > len(stages):
            raise BadInput(
                f"--{field} {text} has {len(values)} values; the stages are "
                f"{', '.join(stages)}."
            )
        for stage, value in zip(stages, values):
            if stage in how:
                how[stage] = _changed(how[stage], field, kind, value)
    return how


def _changed(how, field, kind, value):
    import dataclasses

    from dalle2_jax.errors import BadInput

    try:
        return dataclasses.replace(how, **{field: kind(value)})
    except (ValueError, AssertionError) as error:
        raise BadInput(f"--{field} {value!r}: {error}.") from error
