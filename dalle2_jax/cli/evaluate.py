"""`dalle2 evaluate`: numbers for a model directory."""

from pathlib import Path

NAME = "evaluate"
HELP = "Judge a model: attribute accuracy, CLIP score, Fréchet distance in CLIP space."
EXAMPLE = "dalle2 evaluate --model runs/model --world simple --n 200 --out scores.json"


def add_arguments(parser):
    """The flags of `dalle2 evaluate`."""
    parser.add_argument("--model", required=True, type=Path, help="model directory")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--world", help="a generated world: simple, pairs or full")
    what.add_argument("--data", nargs="+", help="tar shards: captions and references")
    parser.add_argument("--n", type=int, default=200, help="captions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", help="per stage, prior/decoder/upsampler")
    parser.add_argument("--guidance", help="per stage, prior/decoder")
    parser.add_argument("--out", type=Path, help="JSON file for the scores")


def run(args):
    """Draws, judges, prints a table, and writes JSON when asked to."""
    from dalle2_jax.cli.machine import start_jax
    from dalle2_jax.errors import BadInput

    if args.n < 2:
        raise BadInput(f"--n must be at least 2, not {args.n}.")
    start_jax()
    from dalle2_jax.cli.sample import ways
    from dalle2_jax.components import write_json
    from dalle2_jax.unclip import load

    model = load(args.model)
    how = ways(model, args.steps, args.guidance)
    scores = _world(args, model, how) if args.world else _shards(args, model, how)
    print_scores(scores)
    protocol = {"model": args.model.name, "n": args.n, "seed": args.seed, "ema": True}
    protocol |= {
        "features": "the model's own CLIP",
        "captions": args.world or args.data,
    }
    protocol |= {"sampling": {stage: str(way) for stage, way in how.items()}}
    if args.out:
        write_json(args.out, {"scores": scores, "protocol": protocol})


def _world(args, model, how):
    from dalle2_jax.data.write_shapes import evaluation_specs
    from dalle2_jax.evaluate.attributes import judge_routes

    count = 2 if args.world == "pairs" else None
    wanted = evaluation_specs(args.world, args.n, args.seed, count=count)
    found = judge_routes(model, wanted, args.world, args.seed, how)
    return {route: judged.scores for route, judged in found.items()}


def _shards(args, model, how):
    from dalle2_jax.evaluate.shards import judge_shards

    return {"full_stack": judge_shards(model, args.data, args.n, args.seed, how)}


def print_scores(scores):
    """One row per route, one column per number."""
    from rich.console import Console
    from rich.table import Table

    first = next(iter(scores.values()))
    attributes = list(first.get("accuracy", {}))
    others = [k for k in ("clip_score", "frechet_clip") if k in first]
    table = Table("route", *attributes, *others, "n")
    for route, found in scores.items():
        shares = [f"{100 * found['accuracy'][a]:.1f}" for a in attributes]
        table.add_row(
            route, *shares, *(f"{found[k]:.4f}" for k in others), str(found["n"])
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
