"""`dalle2 bench sample`: how fast a model draws, and what it takes."""

from pathlib import Path

from dalle2_jax.cli.flags import local

KARLO = {  # stages: file:variant in configs/
    ("clip",): "clip.py:vit_l_14",
    ("prior",): "prior_diffusion.py:karlo",
    ("decoder",): "decoder_64.py:karlo",
    ("upsampler", "upsampler_last"): "upsampler_256.py:karlo",
}
SETS = {  # name: {fields of model that differ from KARLO}, by first stage
    "karlo": {},
    "karlo_small": {  # of Karlo's shape
        "clip": "clip=256 text.width=256 text.depth=4 text.heads=4",
        "prior": "clip=256 text_width=256 width=512 depth=4 heads=8",
        "decoder": "clip=256 text_width=256 unet.channels=64 unet.depth=2"
        " unet.context_width=256",
        "upsampler": "unet.channels=32 unet.depth=1",
    },
}
COLUMNS = {  # heading: how a stage's figures are written
    "stage": lambda r: r["stage"],
    "parameters": lambda r: f"{r['parameters']:,}",
    "weights GiB": lambda r: f"{r['weights'] / 2**30:.3f}",
    "temporaries GiB": lambda r: f"{r['temporaries'] / 2**30:.3f}",
    "needs GiB": lambda r: f"{r['needs'] / 2**30:.3f}",
    "compile s": lambda r: f"{r['compile_s']:.1f}",
}
TIMES = {
    "seconds (least-most)": lambda r: (
        f"{r['seconds']:.3f} ({r['least']:.3f}-{r['most']:.3f})"
    ),
}
PEER = {
    "diffusers s": lambda r: f"{r['peer_seconds']:.3f} (least {r['peer_least']:.3f})",
    "theirs / ours": lambda r: f"{r['ratio']:.2f} (least {r['ratio_of_least']:.2f})",
    "processor time": lambda r: f"{r['ratio_of_cpu']:.2f}",
}


def add_verb(verbs):
    """Adds `sample` to the verbs of `dalle2 bench`."""
    parser = verbs.add_parser(
        "sample", help="compile and time each stage of drawing; beside diffusers"
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", type=local, help="model directory")
    which.add_argument(
        "--sizes", choices=SETS, help="sizes by name, with made-up weights (configs/)"
    )
    parser.add_argument("--batch", type=int, default=1, help="pictures at a time")
    parser.add_argument("--steps", help="per stage, prior/decoder/upsampler")
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    parser.add_argument("--rounds", type=int, default=5, help="that are timed")
    parser.add_argument(
        "--memory-only", action="store_true", help="compile; no weights, nothing runs"
    )
    parser.add_argument(
        "--peer", action="store_true", help="diffusers' components with these weights"
    )
    parser.add_argument(
        "--torch-compile", action="store_true", help="the peer's networks compiled"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead")
    parser.set_defaults(call=sample)


def sample(args):
    """Measures what was asked for and prints a table or JSON."""
    import json

    from dalle2_jax.cli.machine import start_jax
    from dalle2_jax.errors import BadInput

    if min(args.batch, args.rounds) < 1:
        raise BadInput("--batch and --rounds must be at least 1.")
    if args.memory_only and (args.peer or args.model):
        raise BadInput("--memory-only goes with --sizes, and without --peer.")
    start_jax()
    import jax

    if args.peer and jax.default_backend() != "cpu":
        raise BadInput("--peer compares on CPUs; set JAX_PLATFORMS=cpu.")
    from dalle2_jax.bench.programs import programs
    from dalle2_jax.cli.ways import changed_ways

    model, context = model_of(args)
    how = changed_ways(model, {"steps": args.steps})
    stages = programs(model, args.batch, context, how)
    found = [program.told() for program in stages]
    if not args.memory_only:
        found = timed(args, model, how, stages)
    whole = {"device": jax.devices()[0].device_kind, "dtype": args.dtype}
    whole |= {"batch": args.batch, "steps": {s: w.steps for s, w in how.items()}}
    whole |= fairness(args) if args.peer else {}
    whole |= {"stages": found, **totals(found, args.batch)}
    print(json.dumps(whole, indent=1) if args.json else "\n".join(table(whole)))


def fairness(args):
    """How the two sides were compared; load: of the machine, in processes (1 min)."""
    import os

    from dalle2_jax.bench.peer import threads

    about = {"rounds": args.rounds, "threads": threads(), "load": os.getloadavg()[0]}
    return about | {"torch_compile": args.torch_compile}


def model_of(args):
    """(UnCLIP, tokens of a caption) of the flags."""
    from dalle2_jax.bench.models import made_up, text_only
    from dalle2_jax.cli.overrides import load_run
    from dalle2_jax.config import plain
    from dalle2_jax.unclip import load

    if args.model:
        model = load(args.model, args.dtype)
        return model, model.clip.cfg.text.context
    parts = []
    for stages, file in KARLO.items():
        changes = SETS[args.sizes].get(stages[0], "").split()
        words = [f"--config.model.{change}" for change in changes]
        run = load_run(f"configs/{file}", words)
        plain_clip = run.stage == "clip"
        cfg = text_only(run.model) if plain_clip else run.model
        noise = None if plain_clip else run.noise
        parts += [(stage, cfg, noise, plain(run.sampling)) for stage in stages]
    context = parts[0][1].text.context
    return made_up(parts, args.dtype, args.memory_only), context


def timed(args, model, how, stages):
    """The stages' figures with their seconds, and the peer's in alternating rounds."""
    import tempfile

    from dalle2_jax.bench.peer import pipeline
    from dalle2_jax.bench.peer import stages as peers_of
    from dalle2_jax.bench.programs import rounds, runner_of

    peers, found = {}, []
    with tempfile.TemporaryDirectory() as folder:
        if args.peer:
            pipe = pipeline(model, Path(folder), args.dtype, args.torch_compile)
            peers = peers_of(pipe, args.batch, how)
    for program in stages:
        calls = {"ours": runner_of(program)}
        calls |= {"peer": peers[program.stage]} if program.stage in peers else {}
        seconds = rounds(calls, args.rounds)
        found.append(program.told() | figures(**seconds))
    return found


def figures(ours, peer=None):
    """Medians and extremes of lists of Taken, and the ratios of theirs to ours."""
    from statistics import median

    row = {"seconds": median(x.wall for x in ours), "cpu": median(x.cpu for x in ours)}
    row |= {"least": min(x.wall for x in ours), "most": max(x.wall for x in ours)}
    if peer is not None:
        row["peer_seconds"] = median(x.wall for x in peer)
        row["peer_cpu"] = median(x.cpu for x in peer)
        row["peer_least"] = min(x.wall for x in peer)
        row |= ratios(row)
    return row


def ratios(row):
    """How many times as long the peer takes: median, least, and of processor time."""
    return {
        "ratio": row["peer_seconds"] / row["seconds"],
        "ratio_of_least": row["peer_least"] / row["least"],
        "ratio_of_cpu": row["peer_cpu"] / max(row["cpu"], 1e-9),
    }


def totals(found, batch):
    """Figures of all stages together."""
    from dalle2_jax.bench.programs import peak_bytes

    whole = {"needs": max(row["needs"] for row in found)}
    whole["weights_of_all"] = sum(row["weights"] for row in found)
    whole["compile_s"] = sum(row["compile_s"] for row in found)
    summed = ("seconds", "least", "cpu", "peer_seconds", "peer_least", "peer_cpu")
    for name in summed:
        if all(name in row for row in found):
            whole[name] = sum(row[name] for row in found)
    if "seconds" in whole:
        whole["images_per_s"] = batch / whole["seconds"]
        whole["peak_bytes"], whole["bytes_of"] = peak_bytes()
    return whole | (ratios(whole) if "peer_seconds" in whole else {})


def table(whole):
    """Lines of text: the conditions, a row for each stage, and all of them."""
    steps = "/".join(str(value) for value in whole["steps"].values())
    yield f"{whole['dtype']}, batch {whole['batch']}, steps {steps}: {whole['device']}"
    if "threads" in whole:
        compiled = "compiled" if whole["torch_compile"] else "as they are"
        yield (
            f"diffusers' networks {compiled}; {whole['threads']} threads on both "
            f"sides, {whole['rounds']} rounds in turns after one that is not counted; "
            f"load average {whole['load']:.1f}"
        )
    columns = COLUMNS | (TIMES if "seconds" in whole else {})
    columns |= PEER if "ratio" in whole else {}
    yield " | ".join(columns)
    for row in whole["stages"]:
        yield " | ".join(write(row) for write in columns.values())
    gib = whole["needs"] / 2**30
    yield f"one stage at a time needs {gib:.3f} GiB of the device"
    if "images_per_s" in whole:
        yield f"{whole['images_per_s']:.4g} images/s, {whole['seconds']:.3f} s a batch"
    if "ratio" in whole:
        yield (
            f"diffusers takes {whole['ratio']:.2f} times as long "
            f"({whole['ratio_of_least']:.2f} by the least of each, "
            f"{whole['ratio_of_cpu']:.2f} in processor time)"
        )
