"""`dalle2 evaluate`: numbers for a model directory, or for two sets of pictures."""

from pathlib import Path

NAME = "evaluate"
HELP = (
    "Judge a model, or any pictures: FID, sFID, KID, Inception Score, precision,\n"
    "recall, density, coverage, CLIP score, CMMD; or what the pictures of a generated\n"
    "world show. Beside every number stands how it was measured. Several processes\n"
    "share the work; after an interruption the same command goes on."
)
EXAMPLE = """dalle2 evaluate --model runs/model --data 'shards/{00000..00009}.tar'
         --n 30000 --metrics fid,kid,clip_score --out scores.json
what the pictures of a generated world show, by every route of z_i:
  dalle2 evaluate --model runs/model --world simple --n 200 --out scores.json
with the published network of FID (a file you have):
  dalle2 evaluate --model runs/model --data shards --n 30000 --metrics fid,sfid,is
         --inception pt_inception-2015-12-05-6726825d.pth --resize clean
COCO's zero-shot FID, by a named protocol; fid by legacy_tf, fid_clean by clean:
  dalle2 evaluate --model runs/model --protocol coco2014-val-30k-v1 --data coco
         --inception pt_inception-2015-12-05-6726825d.pth --out coco.json
pictures against pictures, or against statistics (ours, ADM's, EDM's, clean-fid's):
  dalle2 evaluate --samples pictures.npz --reference VIRTUAL_imagenet256.npz
         --metrics fid,sfid,is,precision,recall --inception pt_inception.pth
statistics of a reference set for later, from its own pictures:
  dalle2 evaluate --data val --write-reference val.npz --inception pt_inception.pth
on four processes of this machine, as a pod would on its hosts:
  dalle2 launch --processes 4 -- evaluate --model runs/model --data shards --n 30000
         --work runs/scores.work --out scores.json"""
METRICS = "fid,kid,clip_score"
OTHERS = "fid_clean,sfid,is,precision,recall,density,coverage,cmmd"


def add_arguments(parser):
    """The flags of `dalle2 evaluate`."""
    from dalle2_jax.cli.machine import add_process_flags

    what = parser.add_argument_group("what is judged")
    what.add_argument("--model", type=Path, help="model directory, which draws")
    what.add_argument(
        "--samples", help="or pictures: a folder, tar shards, an .npz with arr_0"
    )
    what.add_argument("--n", type=int, help="samples (default: 200, or all that are)")
    what.add_argument("--seed", type=int, default=0, help="of the samples' noise")
    what.add_argument("--steps", help="per stage, prior/decoder/upsampler")
    what.add_argument("--guidance", help="per stage, prior/decoder")
    what.add_argument("--captions", type=Path, help="text lines, or CSV column text")
    what = parser.add_argument_group("against what")
    what.add_argument(
        "--data", nargs="+", help="reference pictures: shards, a folder, COCO's"
    )
    what.add_argument("--reference", type=Path, help="or statistics of them, .npz")
    what.add_argument(
        "--n-reference", type=int, help="of them (default: as many as drawn, or all)"
    )
    what.add_argument("--world", help="a generated world: simple, pairs or full")
    how = parser.add_argument_group("how")
    how.add_argument("--metrics", help=f"default: {METRICS}; also {OTHERS}")
    how.add_argument(
        "--neighbours",
        type=int,
        metavar="K",
        help="of precision and recall (default: 3), density and coverage (default: 5)",
    )
    how.add_argument("--protocol", help="coco2014-val-30k-v1: sets size, crop, n")
    how.add_argument("--inception", type=Path, help="weights of the 2015 Inception")
    how.add_argument("--features", help="clip, inception or module:function")
    how.add_argument("--clip", type=Path, help="model directory whose CLIP judges")
    how.add_argument(
        "--resize",
        help="to Inception's input: legacy_tf (default), legacy_pytorch or clean",
    )
    how.add_argument("--crop", help="of references: center (default) or squeeze")
    how.add_argument("--size", type=int, help="of references (default: of the samples)")
    out = parser.add_argument_group("what is written")
    out.add_argument("--out", type=Path, help="JSON file for the scores")
    out.add_argument("--write-reference", type=Path, help="the reference's statistics")
    out.add_argument("--keep-samples", type=Path, help="folder of PNGs, or one .npz")
    out.add_argument("--work", type=Path, help="folder of parts (default: OUT.work)")
    out.add_argument("--batch", type=int, default=64, help="pictures between two saves")
    out.add_argument(
        "--unit",
        type=int,
        default=16,
        help="pictures per device and program; the last digits depend on it",
    )
    add_process_flags(parser)


def run(args):
    """Draws, judges, prints a table, and writes JSON when asked to."""
    check(args)
    if args.world:
        judge_world(args)
        return
    from dalle2_jax.cli.judging import judge_pictures

    judge_pictures(args)


def check(args):
    """Raises BadInput for flags that do not go together."""
    from dalle2_jax.errors import BadInput

    least_of = {"n": 2, "n_reference": 2, "batch": 1, "unit": 1, "size": 1}
    least_of["neighbours"] = 1
    for name, least in least_of.items():
        value = getattr(args, name)
        if value is not None and value < least:
            flag = name.replace("_", "-")
            raise BadInput(f"--{flag} must be at least {least}, not {value}.")
    alone = args.data and args.write_reference and not args.model
    if args.model and args.samples or not (args.model or args.samples or alone):
        raise BadInput("give --model DIR, which draws, or --samples, which are drawn.")
    if args.world and (args.samples or args.data or args.reference):
        raise BadInput("--world judges a --model alone; leave the other sets out.")
    if args.world and (args.inception or args.features or args.clip or args.protocol):
        raise BadInput(
            "--world judges in the model's own CLIP; for other features use `dalle2 "
            "study prior --world`."
        )
    if args.model and not (args.world or args.data or args.captions):
        raise BadInput("give --data, --captions or --world: what --model is to draw.")


def judge_world(args):
    """What the pictures of a generated world show, route by route (unCLIP §5.1)."""
    from dalle2_jax.cli.machine import start_jax
    from dalle2_jax.cli.sample import ways
    from dalle2_jax.components import write_json

    start_jax()
    from dalle2_jax.cli.study_routes import print_routes, reported
    from dalle2_jax.cli.studying import notes_of
    from dalle2_jax.evaluate.prior_importance import prior_importance
    from dalle2_jax.evaluate.protocol import model_facts
    from dalle2_jax.evaluate.wanted import of_world
    from dalle2_jax.evaluate.yardstick import yardstick
    from dalle2_jax.unclip import load

    model = load(args.model)
    how = ways(model, args.steps, args.guidance)
    measure = yardstick(model, of_world(args.world, args.n or 200, args.seed))
    judged = prior_importance(model, measure, args.seed, how)
    scores = {route: found.scores for route, found in judged.items()}
    drawn = model_facts(args.model, model, how, args.seed)
    print_routes(scores, notes_of(measure, drawn))
    found = {
        route: reported(measure, of_one, drawn | {"route": route})
        for route, of_one in scores.items()
    }
    if args.out:
        write_json(args.out, {"scores": found})
        print(f"scores in {args.out}")
