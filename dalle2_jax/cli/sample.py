"""`dalle2 sample`: captions to pictures."""

from pathlib import Path

NAME = "sample"
HELP = "Draw pictures for captions with a model directory."
EXAMPLE = 'dalle2 sample --model runs/model "a large red circle" --n 4 --out pictures'


def add_arguments(parser):
    """The flags of `dalle2 sample`."""
    parser.add_argument(
        "captions", nargs="*", help="captions; - reads lines from stdin"
    )
    parser.add_argument("--model", required=True, type=Path, help="model directory")
    parser.add_argument("--out", required=True, type=Path, help="folder for the PNGs")
    parser.add_argument("--n", type=int, default=1, help="pictures per caption")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=64, help="pictures per program")
    parser.add_argument(
        "--steps", help="per stage, prior/decoder/upsampler, e.g. 64/250/27"
    )
    parser.add_argument("--guidance", help="per stage, prior/decoder, e.g. 1/1.5")


def run(args):
    """Samples; writes one PNG per picture, with its provenance inside, and a grid."""
    from dalle2_jax.cli.machine import start_jax

    captions = captions_of(args.captions)
    check(args, captions)
    start_jax()
    import numpy as np

    from dalle2_jax.cli.pictures import contact_sheet, save_picture
    from dalle2_jax.unclip import generate, load

    model = load(args.model)
    how = ways(model, args.steps, args.guidance)
    wanted = [caption for caption in captions for _ in range(args.n)]
    args.out.mkdir(parents=True, exist_ok=True)
    pictures = []
    batch = min(args.batch, len(wanted))
    for part in generate(model, wanted, args.seed, batch, how):
        pictures += list(part)
        print(f"{len(pictures)}/{len(wanted)} pictures", flush=True)
    for index, (caption, picture) in enumerate(zip(wanted, pictures)):
        facts = {"caption": caption, "seed": args.seed, "sample": index}
        facts |= {"model": args.model.name, "steps": args.steps or "the model's own"}
        facts |= {"guidance": args.guidance or "the model's own"}
        save_picture(args.out / f"{index:05d}.png", picture, facts)
    sheet = contact_sheet(np.stack(pictures), wanted, columns=max(args.n, 4))
    save_picture(args.out / "grid.png", sheet, {"model": args.model.name})
    print(f"{len(pictures)} pictures and grid.png in {args.out}")


def captions_of(words):
    """The captions of the command line, or of standard input for a lone dash."""
    import sys

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


def ways(model, steps, guidance):
    """{stage: Sampling} from "64/250/27" and "1/1.5"; what is not given stays."""
    import dataclasses

    from dalle2_jax.errors import BadInput
    from dalle2_jax.unclip import prior_of, sampling_of

    stages = (prior_of(model), "decoder", "upsampler", "upsampler_2")
    parts = {s: getattr(model, s) for s in stages if getattr(model, s) is not None}
    how = {stage: sampling_of(part) for stage, part in parts.items()}
    for text, field, kind in ((steps, "steps", str), (guidance, "guidance", float)):
        values = text.split("/") if text else ()
        if len(values) > len(parts):
            raise BadInput(
                f"--{field} {text} has {len(values)} values; the model's stages are "
                f"{', '.join(parts)}."
            )
        for stage, value in zip(stages, values):
            try:
                changed = {field: kind(value)}
            except ValueError as error:
                raise BadInput(f"--{field} {text}: {value!r} is no number.") from error
            if stage in how:
                how[stage] = dataclasses.replace(how[stage], **changed)
    return how
