"""`dalle2 inspect`: what a folder is."""

from dalle2_jax.cli.flags import local

NAME = "inspect"
HELP = "Say what a run or model directory holds: stage, step, parameters, integrity."
EXAMPLE = (
    "dalle2 inspect runs/quickstart/model\n"
    "         dalle2 inspect runs/decoder --verify\n"
    "         diff <(dalle2 inspect runs/a --digest) <(dalle2 inspect runs/b --digest)"
)


def add_arguments(parser):
    """The flags of `dalle2 inspect`."""
    parser.add_argument("path", type=local, help="run directory or model directory")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read every leaf and file of every checkpoint of a run, or the weights of "
        "every component of a model; name those that are not what was written",
    )
    parser.add_argument(
        "--digest",
        action="store_true",
        help="one line for the newest checkpoint of a run: equal lines, equal state "
        "(parameters, EMA, optimizer, data position)",
    )


def run(args):
    """Prints a description; needs no device, and jax only to verify."""
    from dalle2_jax.errors import BadInput

    if args.verify and (args.path / "dalle2.json").is_file():
        return check_model(args.path)
    if args.verify or args.digest:
        return check(args.path, args.verify, args.digest)
    if (args.path / "dalle2.json").is_file():
        return describe_model(args.path)
    if (args.path / "config.json").is_file():
        return describe_run(args.path)
    raise BadInput(
        f"{args.path} is neither a run nor a model directory: it holds no config.json "
        "and no dalle2.json."
    )


def describe_model(folder):
    """Components, parameters and bytes, read from the safetensors headers alone."""
    import math

    from safetensors import safe_open

    about = read(folder / "dalle2.json")
    print(f"model directory, format {about['format']}, {about['written_by']}")
    for name in about["components"]:
        path = folder / name / "model.safetensors"
        with safe_open(path, "np") as file:
            slices = [file.get_slice(key) for key in sorted(file.keys())]
            count = sum(math.prod(s.get_shape()) for s in slices)
            kinds = sorted({s.get_dtype() for s in slices})
        config = read(folder / name / "config.json")
        size = path.stat().st_size / 1e6
        print(
            f"  {name:<10} {count:>13,} parameters  {size:8.1f} MB  {'/'.join(kinds)}"
        )
        steps, seed = config.get("steps", "?"), config.get("seed", "?")
        print(
            f"  {'':<10} steps {steps}, batch {config.get('batch', '?')}, seed {seed}"
        )
    if (folder / "tokenizer").is_dir():
        size = len(read(folder / "tokenizer" / "vocab.json"))
        print(f"  {'tokenizer':<10} {size:>13,} ids")


def describe_run(folder):
    """Stage, progress, checkpoints and the last metrics of a run directory."""
    import json

    config = read(folder / "config.json")
    saved = folder / "checkpoints"
    steps = sorted(int(p.name) for p in saved.glob("*") if p.name.isdigit())
    print(
        f"run of stage {config['stage']}, {config['steps']} steps of {config['batch']}"
    )
    print(f"  checkpoints: {', '.join(map(str, steps)) or 'none'}")
    metrics = folder / "metrics.jsonl"
    lines = (
        metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
    )
    if lines:
        last = json.loads(lines[-1])
        shown = ", ".join(f"{k} {v:.4g}" for k, v in last.items() if k != "step")
        print(f"  step {last['step']}: {shown}")


def check(folder, verify, digest):
    """Verifies every checkpoint of a run, prints the digest of the newest.

    Raises:
        BadInput: no run directory, or no checkpoint.
        Failed: a checkpoint is damaged.
    """
    import os

    from dalle2_jax.errors import BadInput, Failed

    if not (folder / "config.json").is_file():
        raise BadInput(f"{folder} is no run directory: it holds no config.json.")
    os.environ["JAX_PLATFORMS"] = "cpu"  # training may have the accelerator
    from dalle2_jax.cli.machine import start_jax

    start_jax()
    from dalle2_jax.train.verify import digests, problems, steps_of

    if verify:
        found = {s: problems(folder / "checkpoints" / str(s)) for s in steps_of(folder)}
        for step, lines in found.items():
            print(f"checkpoint {step}: {'damaged' if lines else 'intact'}")
            print("".join(f"  {line}\n" for line in lines), end="")
        damaged = [step for step, lines in found.items() if lines]
        if damaged:
            raise Failed(
                f"{folder}: checkpoints {damaged} are damaged; training goes on from "
                "the newest intact one and moves newer ones to damaged/."
            )
    if digest:
        print(" ".join(f"{name} {value}" for name, value in digests(folder).items()))


def check_model(folder):
    """Compares the weights of every component with their checksums.

    Raises:
        BadInput: one is damaged; names the file.
    """
    from dalle2_jax.components import CHECKSUM, check_weights

    for name in read(folder / "dalle2.json")["components"]:
        check_weights(folder / name)
        noted = (folder / name / CHECKSUM).is_file()
        print(f"{name}: {'intact' if noted else 'has no checksum'}")


def read(path):
    """The object in a JSON file; BadInput names a file that cannot be read."""
    import json

    from dalle2_jax.errors import BadInput

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}); export it again.") from error
