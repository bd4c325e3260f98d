"""`dalle2 train`: one stage, from a configuration to a finished component."""

from dalle2_jax.cli.flags import local

NAME = "train"
HELP = "Train one stage; the same command again resumes it."
EXAMPLE = (
    "dalle2 train --config configs/clip.py:small --data 'shards/{00000..00009}.tar'\n"
    "         --workdir runs/clip --model runs/model --config.optim.rate=1e-4\n"
    "goes on from another's weights, over eight microbatches, keeping two averages:\n"
    "dalle2 train --config configs/decoder_64.py:karlo --data 'shards/*.tar'\n"
    "         --workdir runs/tuned --model runs/mine --init runs/karlo\n"
    "         --config.accumulate=8 --config.optim.ema_more='(0.999,)'"
)


def add_arguments(parser):
    """The flags of `dalle2 train`."""
    from dalle2_jax.cli.machine import add_process_flags

    parser.add_argument(
        "--config", required=True, help="configuration file, or file.py:variant"
    )
    parser.add_argument(
        "--data",
        default=["shapes:simple"],
        nargs="+",
        help="tar shards (files, folder, glob, braces, URLs), or generated pictures: "
        "shapes:simple, shapes:pairs, shapes:full[:COUNT] (default: shapes:simple), or "
        "tfds:NAME:SPLIT; for priors also a folder of embeddings (dalle2 data embed)",
    )
    parser.add_argument("--workdir", required=True, type=local, help="run directory")
    parser.add_argument(
        "--model",
        type=local,
        help="model directory: lends frozen CLIP and tokenizer, takes the finished "
        "component (default: WORKDIR/model)",
    )
    parser.add_argument(
        "--init",
        type=local,
        metavar="MODEL",
        help="start from this model directory's component of the same stage and sizes",
    )
    parser.add_argument(
        "--ema",
        type=float,
        metavar="DECAY",
        help="the average that becomes the component, of config.optim.ema (default) "
        "and ema_more; run a finished command again with it to take another",
    )
    parser.add_argument(
        "--other-data",
        action="store_true",
        help="go on with other data than the run has read so far; without it a shard "
        "that is gone, new or changed ends the command",
    )
    parser.add_argument(
        "--wandb", metavar="PROJECT", help="log to Weights & Biases as well"
    )
    parser.add_argument(
        "--profile",
        type=steps,
        metavar="FIRST:LAST",
        help="trace these steps into WORKDIR/profile (Perfetto, xprof)",
    )
    add_process_flags(parser)


def steps(text):
    """ "3:5" -> (3, 5)."""
    first, last = text.split(":")
    return int(first), int(last)


def run(args):
    """Trains; prints the resolved configuration and a progress line."""
    from dalle2_jax.cli.machine import join
    from dalle2_jax.cli.overrides import load_run

    place = join(args)
    from ml_collections import ConfigDict

    from dalle2_jax.cli.progress import Progress
    from dalle2_jax.evaluate.during_training import judge
    from dalle2_jax.train.fit import Job, fit
    from dalle2_jax.train.run import as_dict

    run = load_run(args.config, args.overrides)
    model = args.model or args.workdir / "model"
    seen = (args.init, args.ema, args.wandb, args.profile, judge, args.other_data)
    job = Job(args.data, args.workdir, model, *seen)
    if place.index > 0:
        fit(run, job)
        return
    print(ConfigDict(as_dict(run)))
    with Progress([(run.stage, run.steps)]) as progress:
        progress.begin(run.stage)
        seconds = fit(run, job, progress.show)
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    print(f"{run.stage}: {run.steps} steps done ({spent}); component in {model}")
