"""`dalle2 plan`: what a run will need on a pod, from the TPU compiler, without one."""

from pathlib import Path

NAME = "plan"
HELP = (
    "Compile the real train step for a TPU pod that is not here: memory per chip,\n"
    "operations, communication, predicted images/s and days. Exit 1: does not fit."
)
EXAMPLE = (
    "dalle2 plan --config configs/prior_diffusion.py --topology v5p:4x4x4\n"
    "         --config.batch=2048 --json\n"
    "topologies: v4:2x2x2  v5e:16x16  v5p:4x4x4  v6e:16x16  v5e:16x16+2 (two slices)\n"
    "         cpu:8 (virtual devices; no predictions)"
)


def add_arguments(parser):
    """The flags of `dalle2 plan`."""
    parser.add_argument(
        "--config", required=True, help="configuration file, or file.py:variant"
    )
    parser.add_argument("--topology", required=True, help="such as v5p:4x4x4")
    parser.add_argument(
        "--clip",
        help="configuration of the frozen CLIP (default: clip.py beside --config, of "
        "the same variant where it has one)",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--whole",
        action="store_true",
        help="compile the step whole, also where it would be composed from its blocks",
    )
    how.add_argument(
        "--parts",
        action="store_true",
        help="compose the step from its U-Net's blocks, also where it is small",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead")


def run(args):
    """Prints the plan; raises Failed when the step does not fit."""
    import json
    import math

    devices = start(args.topology)
    from dalle2_jax.cli.overrides import load_run
    from dalle2_jax.errors import Failed
    from dalle2_jax.plan.compose import MANY
    from dalle2_jax.plan.plan import plan
    from dalle2_jax.plan.report import as_json, lines

    run = load_run(args.config, args.overrides)
    clip = load_run(args.clip or clip_beside(args.config)).model
    chip, devices = devices()
    most = math.inf if args.whole else 0 if args.parts else MANY
    found = plan(run, clip, args.topology, chip, devices, most, tell)
    if args.json:
        print(json.dumps(as_json(found), indent=1))
    else:
        print("\n".join(lines(found)))
    if not found.memory.fits:
        raise Failed(
            f"the {run.stage} at batch {run.batch} does not fit {args.topology}; take "
            "more devices, a smaller config.batch, config.accumulate, or remat."
        )


def tell(sentence):
    """Progress goes to stderr; stdout is the plan's."""
    import sys

    print(sentence, file=sys.stderr, flush=True)


def start(topology):
    """Prepares jax for a topology before it is imported: () -> (chip, devices)."""
    import os

    from dalle2_jax.cli.machine import start_jax

    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    kind, _, count = topology.partition(":")
    if kind == "cpu" and count.isdigit():
        flag = f"--xla_force_host_platform_device_count={count}"
        os.environ.setdefault("XLA_FLAGS", flag)
    else:  # programs for devices that are not here cannot be read back
        os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    start_jax()
    from dalle2_jax.plan.topology import devices_of

    return lambda: devices_of(topology)


def clip_beside(config):
    """clip.py in the folder of a configuration, with its variant where clip.py has it.

    Args:
        config: "folder/file.py" or "folder/file.py:variant".
    """
    import runpy

    path, _, variant = config.partition(":")
    clip = Path(path).with_name("clip.py")
    if not clip.is_file():
        clip = Path("configs") / "clip.py"
    known = variant and variant in runpy.run_path(str(clip)).get("VARIANTS", {})
    return f"{clip}:{variant}" if known else str(clip)
