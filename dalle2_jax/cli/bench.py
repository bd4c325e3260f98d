"""`dalle2 bench`: how fast a stage trains, and a model draws, on these devices."""

from dalle2_jax.cli import bench_data, bench_sample

NAME = "bench"
HELP = "Measure: the train step of a stage; drawing, stage by stage; reading of shards."
EXAMPLE = (
    "dalle2 bench train --config configs/decoder_64.py:karlo --batch 16,32,64\n"
    "         --remat both --json\n"
    "         dalle2 bench sample --sizes karlo --memory-only --dtype bfloat16"
)
COLUMNS = {  # heading: how a Timing's field is written
    "batch": lambda t: f"{t['batch']}",
    "remat": lambda t: "yes" if t["remat"] else "no",
    "compile s": lambda t: f"{t['compile_s']:.1f}",
    "step ms (10-90 %)": lambda t: (
        f"{1e3 * t['step_s']:.1f} "
        f"({1e3 * t['fastest_s']:.1f}-{1e3 * t['slowest_s']:.1f})"
    ),
    "images/s": lambda t: f"{t['images_per_s']:.4g}",
    "model TFLOP/step": lambda t: f"{t['flops_per_step'] / 1e12:.4g}",
    "MFU": lambda t: f"{100 * t['mfu']:.1f} %",
    "GiB/device": lambda t: f"{t['program_bytes'] / 2**30:.2f}",
}


def add_arguments(parser):
    """The verbs of `dalle2 bench`."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    step = verbs.add_parser(
        "train",
        help="compile and time the train step; --config.NAME=VALUE changes fields",
    )
    step.add_argument("--config", required=True, help="file, or file.py:variant")
    step.add_argument("--clip", help="of the frozen CLIP (default: clip.py beside it)")
    step.add_argument("--steps", type=int, default=10, help="steps that are timed")
    step.add_argument(
        "--batch", type=numbers, default=(None,), metavar="N,N", help="sizes to try"
    )
    step.add_argument(
        "--remat",
        choices=list(REMATS),
        default="config",
        help="recompute activations: as configured, nowhere, wherever possible, or try "
        "both",
    )
    step.add_argument("--json", action="store_true", help="one JSON list instead")
    step.set_defaults(call=train)
    bench_sample.add_verb(verbs)
    bench_data.add_verb(verbs)


REMATS = {"config": (None,), "off": (False,), "on": (True,), "both": (False, True)}


def numbers(text):
    """ "16,32" -> (16, 32)."""
    return tuple(int(word) for word in text.split(","))


def run(args):
    """Measures what was chosen."""
    args.call(args)


def train(args):
    """Times every combination of --batch and --remat and prints a table."""
    import itertools
    import json

    from dalle2_jax.cli.machine import start_jax
    from dalle2_jax.cli.overrides import load_run

    start_jax()
    from dalle2_jax.cli.plan import clip_beside
    from dalle2_jax.plan.program import check_clip
    from dalle2_jax.train.run import HEARING

    run = load_run(args.config, args.overrides)
    clip = None
    if run.stage in HEARING:
        clip = load_run(args.clip or clip_beside(args.config)).model
        check_clip(run, clip)
    choices = itertools.product(args.batch, REMATS[args.remat])
    found = [attempt(run, clip, args.steps, *choice) for choice in choices]
    print(json.dumps(found, indent=1) if args.json else "\n".join(table(found)))


def attempt(run, clip, steps, batch, remat):
    """One Timing as a dict; of one that does not fit into memory, only its choice."""
    from jax.errors import JaxRuntimeError

    from dalle2_jax.train.bench import bench_train, varied

    changed = varied(run, batch, remat)
    try:
        return bench_train(changed, clip, steps)._asdict()
    except JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"batch": changed.batch, "remat": remat, "out_of_memory": True}


def table(found):
    """Lines of text: what was measured, and a row for each Timing."""
    whole = [timing for timing in found if "out_of_memory" not in timing]
    if whole:
        t = whole[0]
        yield (
            f"{t['stage']}, {t['parameters']:,} parameters, computing in {t['dtype']}, "
            f"on {t['devices']} x {t['device']}: {t['peak_flops'] / 1e12:.4g} TFLOP/s "
            "measured"
        )
    yield " | ".join(COLUMNS)
    for timing in found:
        fits = "out_of_memory" not in timing
        cells = [str(timing["batch"]), "yes" if timing["remat"] else "no"]
        if fits:
            cells = [write(timing) for write in COLUMNS.values()]
        yield " | ".join(cells if fits else [*cells, "does not fit into memory"])
