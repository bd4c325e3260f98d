"""`dalle2 train`: one stage, from a configuration to a finished component."""

from pathlib import Path

NAME = "train"
HELP = "Train one stage; the same command again resumes it."
EXAMPLE = (
    "dalle2 train --config configs/clip.py:small --data 'shards/{00000..00009}.tar'\n"
    "         --workdir runs/clip --model runs/model --config.optim.rate=1e-4"
)


def add_arguments(parser):
    """The flags of `dalle2 train`."""
    from dalle2_jax.cli.machine import add_process_flags

    parser.add_argument(
        "--config", required=True, help="configuration file, or file.py:variant"
    )
    parser.add_argument("--data", required=True, nargs="+", help="tar shards (pattern)")
    parser.add_argument("--workdir", required=True, type=Path, help="run directory")
    parser.add_argument(
        "--model",
        type=Path,
        help="model directory: lends frozen CLIP and tokenizer, takes the finished "
        "component (default: WORKDIR/model)",
    )
    add_process_flags(parser)


def run(args):
    """Trains; prints the resolved configuration and a progress line."""
    from dalle2_jax.cli.machine import join
    from dalle2_jax.cli.overrides import load_run

    place = join(args)
    from ml_collections import ConfigDict

    from dalle2_jax.cli.progress import Progress
    from dalle2_jax.train.fit import Job, fit
    from dalle2_jax.train.run import as_dict

    run = load_run(args.config, args.overrides)
    model = args.model or args.workdir / "model"
    if place.index > 0:
        fit(run, Job(args.data, args.workdir, model))
        return
    print(ConfigDict(as_dict(run)))
    with Progress([(run.stage, run.steps)]) as progress:
        progress.begin(run.stage)
        seconds = fit(run, Job(args.data, args.workdir, model), progress.show)
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    print(f"{run.stage}: {run.steps} steps done ({spent}); component in {model}")
