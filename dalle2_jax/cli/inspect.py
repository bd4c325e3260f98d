"""`dalle2 inspect`: what a folder is."""

from pathlib import Path

NAME = "inspect"
HELP = "Say what a run or model directory holds: stage, step, parameters, integrity."
EXAMPLE = "dalle2 inspect runs/quickstart/model"


def add_arguments(parser):
    """The flags of `dalle2 inspect`."""
    parser.add_argument("path", type=Path, help="run directory or model directory")


def run(args):
    """Prints a description; needs neither jax nor a device."""
    from dalle2_jax.errors import BadInput

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
            slices = [file.get_slice(key) for key in file.keys()]  # noqa: SIM118
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


def read(path):
    """The object in a JSON file; BadInput names a file that cannot be read."""
    import json

    from dalle2_jax.errors import BadInput

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}); export it again.") from error
