"""`dalle2 inspect`: what a folder is."""

from pathlib import Path

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
    is_model = kind_of(args.path) == "model"
    if args.verify and is_model:
        check_model(args.path)
    elif args.verify or args.digest:
        check(args.path, args.verify, args.digest)
    elif is_model:
        describe_model(args.path)
    else:
        describe_run(args.path)


def kind_of(folder: Path) -> str:
    """What a folder is: "model" or "run".

    Raises:
        BadInput: it is neither, or no folder.
    """
    from dalle2_jax.errors import BadInput

    if (folder / "dalle2.json").is_file():
        return "model"
    if (folder / "config.json").is_file():
        return "run"
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise BadInput(f"{folder} {what}; give a run or model directory.")
    raise BadInput(
        f"{folder} is neither a run nor a model directory: it holds no config.json "
        "and no dalle2.json."
    )


def describe_model(folder):
    """Components, parameters and bytes, read from the safetensors headers alone."""
    about, names = model_of(folder)
    print(
        f"model directory, format {about.get('format', '?')}, "
        f"{about.get('written_by', 'of an unknown writer')}"
    )
    for name in names:
        config = read(folder / name / "config.json")
        count, kinds, size = weights_of(folder / name / "model.safetensors")
        print(f"  {name:<10} {count:>13,} parameters  {size:8.1f} MB  {kinds}")
        steps, seed = config.get("steps", "?"), config.get("seed", "?")
        print(
            f"  {'':<10} steps {steps}, batch {config.get('batch', '?')}, seed {seed}"
        )
    if (folder / "tokenizer").is_dir():
        size = len(read(folder / "tokenizer" / "vocab.json"))
        print(f"  {'tokenizer':<10} {size:>13,} ids")


def model_of(folder: Path) -> tuple[dict, list[str]]:
    """dalle2.json of a model directory, and the components that it names.

    Raises:
        BadInput: it is of another program, or damaged.
    """
    from dalle2_jax.errors import BadInput

    path = folder / "dalle2.json"
    about = read(path)
    names = about.get("components")
    if not isinstance(names, list) or not all(
        isinstance(name, str) and name.isidentifier() for name in names
    ):
        raise BadInput(
            f"{path} names no components; it is of another program, or damaged: export "
            "the model again."
        )
    return about, names


def weights_of(path: Path) -> tuple[int, str, float]:
    """Parameters, their dtypes and megabytes of a safetensors file, of its header.

    Raises:
        BadInput: it cannot be read.
    """
    import math

    from safetensors import SafetensorError, safe_open

    from dalle2_jax.errors import BadInput

    try:
        with safe_open(path, "np") as file:
            slices = [file.get_slice(key) for key in sorted(file.keys())]
            count = sum(math.prod(s.get_shape()) for s in slices)
            kinds = sorted({s.get_dtype() for s in slices})
        return count, "/".join(kinds), path.stat().st_size / 1e6
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path} cannot be read ({error}); export it again.") from error


def run_config(folder: Path) -> dict:
    """config.json of a run directory.

    Raises:
        BadInput: it is none of a run.
    """
    from dalle2_jax.errors import BadInput

    path = folder / "config.json"
    config = read(path)
    kinds = {"stage": str, "steps": int, "batch": int}
    for name, kind in kinds.items():
        if not isinstance(config.get(name), kind):
            raise BadInput(
                f"{path} is no configuration of a run (its {name} is "
                f"{config.get(name)!r}); give the --workdir of `dalle2 train`, or a "
                "model directory."
            )
    return config


def describe_run(folder):
    """Stage, progress, checkpoints and the last metrics of a run directory."""
    from dalle2_jax.files import json_lines

    config = run_config(folder)
    saved = folder / "checkpoints"
    steps = sorted(int(p.name) for p in saved.glob("*") if p.name.isdecimal())
    print(
        f"run of stage {config['stage']}, {config['steps']} steps of {config['batch']}"
    )
    print(f"  checkpoints: {', '.join(map(str, steps)) or 'none'}")
    told = [m for m in json_lines(folder / "metrics.jsonl") if "step" in m]
    if told:
        values = {k: v for k, v in told[-1].items() if isinstance(v, int | float)}
        shown = ", ".join(f"{k} {v:.4g}" for k, v in values.items() if k != "step")
        print(f"  step {told[-1]['step']}: {shown}")


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

    if not steps_of(folder):
        run_config(folder)  # a foreign folder has none either
    if verify:
        if not steps_of(folder):
            raise BadInput(f"{folder} holds no checkpoint yet; train it for a while.")
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

    for name in model_of(folder)[1]:
        read(folder / name / "config.json")
        weights_of(folder / name / "model.safetensors")
        check_weights(folder / name)
        noted = (folder / name / CHECKSUM).is_file()
        print(f"{name}: {'intact' if noted else 'has no checksum'}")


def read(path):
    """The object in a JSON file; BadInput names a file that cannot be read."""
    import json

    from dalle2_jax.errors import BadInput

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read ({error}); export it again.") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path} holds no JSON object; export it again.")
    return found
