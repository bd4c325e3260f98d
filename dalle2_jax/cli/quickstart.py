"""`dalle2 quickstart`: every stage of unCLIP, trained and judged on a generated world.

A handful of calls of what train, sample and evaluate call; each step is skipped where
an earlier, interrupted run has finished it.

    OUT/data/<world>-<count>/           shards
    OUT/<world>-<minutes>min-seed<s>/   clip/ prior/ decoder/ upsampler/ (runs), model/
    OUT/grid.png curves.png report.json report.md
    OUT/model                           a copy of the model of the latest run
"""

import dataclasses
import time
from pathlib import Path

from dalle2_jax.cli.flags import local, seed

NAME = "quickstart"
HELP = "Train and judge the whole of unCLIP on generated pictures, in minutes."
EXAMPLE = "dalle2 quickstart --minutes 12 --world simple --out runs/quickstart"
OVERHEAD = 3.0  # minutes that do not grow with the budget: data, compiling, judging
ACCEPTED = 0.85  # of a probe on held-out pairs; below it, z_i lacks the attribute
COPIED = "quickstart.json"  # in OUT/model: whose copy it is
STAGES = ("clip", "prior", "decoder", "upsampler")
CONFIGS = {
    "clip": "clip.py",
    "prior": "prior_diffusion.py",
    "decoder": "decoder_64.py",
    "upsampler": "upsampler_256.py",
}


@dataclasses.dataclass(frozen=True)
class World:
    """A world's budget: minutes by default, pictures, tokens, and steps per stage."""

    minutes: float
    count: int
    context: int
    steps: dict
    variant: str = "small"  # of CLIP's configuration


def _steps(clip, prior, decoder, upsampler):
    return dict(zip(STAGES, (clip, prior, decoder, upsampler)))


WORLDS = {
    "simple": World(12, 24_000, 16, _steps(700, 300, 2400, 300)),
    "pairs": World(15, 24_000, 20, _steps(1600, 250, 3800, 300), "pairs"),
    "full": World(60, 40_000, 48, _steps(3000, 1500, 12_000, 2000), "pairs"),
}


def add_arguments(parser):
    """The flags of `dalle2 quickstart`."""
    parser.add_argument("--world", default="simple", choices=sorted(WORLDS))
    parser.add_argument(
        "--minutes", type=float, help="budget on two cores (default: the world's own)"
    )
    parser.add_argument("--out", type=local, default=Path("runs/quickstart"))
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--captions", type=int, default=200, help="captions judged")
    parser.add_argument(
        "--paper-conditioning",
        action="store_true",
        help="z_i by the paper's two routes alone, without the spatial map",
    )


def run(args):
    """Data, four stages, judgement, report."""
    from dalle2_jax.cli.machine import start_jax

    plan = plan_of(args)
    start_jax()
    from dalle2_jax.files import Lock

    plan.folder.mkdir(parents=True, exist_ok=True)
    with Lock(plan.out, "choose another --out"):
        train_and_judge(plan)


def train_and_judge(plan):
    """`run` in a folder that is its own."""
    from dalle2_jax.cli.progress import Progress
    from dalle2_jax.cli.report import write_report
    from dalle2_jax.components import read_json, write_json

    times_file = plan.folder / "times.json"
    times = read_json(times_file, "remove it") if times_file.is_file() else {}
    runs = {stage: stage_run(plan, stage) for stage in STAGES}
    with Progress([(stage, runs[stage].steps) for stage in STAGES]) as progress:
        began = time.monotonic()
        data = make_data(plan)
        times.setdefault("data", {"total": time.monotonic() - began})
        for stage in STAGES:
            spent = train_stage(plan, runs[stage], data, progress)
            if spent:
                times[stage] = added(times.get(stage, {}), spent)
                write_json(times_file, times)
            if stage == "clip":
                probes = probe_clip(plan, progress.say)
    copy_model(plan)
    began = time.monotonic()
    found = judge(plan)
    times["judge"] = {"total": time.monotonic() - began}
    write_json(times_file, times)
    write_report(plan, {**found, "probes": probes}, times)
    for part, spent in times.items():
        phases = ", ".join(f"{name} {value:.0f} s" for name, value in spent.items())
        print(f"{part:<10} {phases}")
    print(f"{plan.out / 'report.md'} and {plan.out / 'grid.png'} are ready")


@dataclasses.dataclass(frozen=True)
class Plan:
    """One quickstart, resolved."""

    world: str
    minutes: float
    out: Path
    seed: int
    captions: int
    decoder: str  # variant of the decoder's configuration

    @property
    def folder(self):
        """Where this world, budget and seed keep their runs."""
        extra = "-paper" if self.decoder.endswith("_paper") else ""
        return self.out / f"{self.world}-{self.minutes:g}min-seed{self.seed}{extra}"

    @property
    def scale(self):
        """Steps over the default number of steps."""
        default = WORLDS[self.world].minutes - OVERHEAD
        return max((self.minutes - OVERHEAD) / default, 0.02)

    @property
    def count(self):
        """Training pictures; a longer run gets more, up to four times as many."""
        whole = WORLDS[self.world].count * min(max(self.scale, 0.05), 4)
        return max(int(whole) // 2 * 2, 512)


def plan_of(args):
    """The Plan of the flags. Raises BadInput for a budget that cannot be."""
    from dalle2_jax.errors import BadInput

    world = WORLDS[args.world]
    minutes = world.minutes if args.minutes is None else args.minutes
    if not 0 < minutes < 100_000:
        raise BadInput(
            f"--minutes must be above 0, not {minutes:g}; the default is "
            f"{world.minutes:g}."
        )
    if args.captions < 2:
        raise BadInput(f"--captions must be at least 2, not {args.captions}.")
    decoder = "small_paper" if args.paper_conditioning else "small"
    return Plan(args.world, minutes, args.out, args.seed, args.captions, decoder)


def stage_run(plan, stage):
    """The Run of one stage: the small configuration, its steps scaled to the budget."""
    from importlib.resources import files

    from dalle2_jax.cli.overrides import load_run

    world = WORLDS[plan.world]
    variant = {"decoder": plan.decoder, "clip": world.variant}.get(stage, "small")
    path = files("dalle2_jax.configs") / CONFIGS[stage]
    steps = max(int(world.steps[stage] * plan.scale), 4)
    overrides = [f"steps={steps}", f"seed={plan.seed}", f"data.context={world.context}"]
    if stage == "clip":
        overrides.append(f"model.text.context={world.context}")
    if stage == "prior":
        overrides.append(f"model.context={world.context}")
    changes = [f"--config.{text}" for text in overrides]
    return load_run(f"{path}:{variant}", changes)


def make_data(plan):
    """The world's training shards; written once for all runs of that size."""
    from dalle2_jax.data.write_shapes import make_shapes

    folder = plan.out / "data" / f"{plan.world}-{plan.count}"
    print(
        f"data: {plan.count} captioned pictures of the world {plan.world!r}", flush=True
    )
    return make_shapes(plan.world, plan.count, seed=0, out_dir=folder)


def copy_model(plan):
    """OUT/model becomes a copy of this run's model, in place of that of another run.

    A folder of that name that no quickstart has made is left alone.
    """
    import shutil

    from dalle2_jax.components import write_json

    place, draft = plan.out / "model", plan.out / ".model.new"
    if place.is_dir() and not place.is_symlink() and not (place / COPIED).is_file():
        print(f"{place} is none of a quickstart; the model is {plan.folder / 'model'}")
        return
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(plan.folder / "model", draft)
    write_json(draft / COPIED, {"copied_from": f"{plan.folder.name}/model"})
    if place.is_symlink() or place.is_file():
        place.unlink()
    shutil.rmtree(place, ignore_errors=True)
    draft.replace(place)


def added(before, now):
    """Seconds by phase of a stage that was interrupted: the sum of its parts."""
    return {name: before.get(name, 0.0) + value for name, value in now.items()}


def train_stage(plan, run, data, progress):
    """Trains a stage unless its component is there; seconds by phase, or None."""
    from dalle2_jax.components import read_json
    from dalle2_jax.train.fit import Job, fit
    from dalle2_jax.train.run import as_dict

    model = plan.folder / "model"
    done, wanted = model / run.stage / "config.json", as_dict(run)
    found = read_json(done, "remove it") if done.is_file() else {}
    if {name: found.get(name) for name in wanted} == wanted:
        progress.say(f"{run.stage}: finished before")
        progress.finish(run.stage)
        return None
    progress.begin(run.stage)
    began = time.monotonic()
    job = Job([str(path) for path in data], plan.folder / run.stage, model)
    spent = fit(run, job, progress.show)
    progress.finish(run.stage)
    return {**spent, "total": time.monotonic() - began}


def probe_clip(plan, say):
    """What the frozen embedding holds, before anything is built on it.

    Good retrieval can hide an embedding without shape; a linear probe cannot be fooled.
    """
    from dalle2_jax.components import load_component
    from dalle2_jax.evaluate.linear_probe import probe_world

    few = max(min(plan.captions * 5, 1000), 50)
    clip = load_component(plan.folder / "model", "clip")
    probes = probe_world(clip, plan.world, 4 * few, few)
    held = {name: found["held_out"] for name, found in probes.items()}
    weak = [name for name, share in held.items() if share < ACCEPTED]
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in held.items())
    say(f"clip: linear probes on held-out pairs: {shares or 'none in this world'}")
    if weak:
        bound = f"below {100 * ACCEPTED:.0f} %"
        say(f"clip: {', '.join(weak)} {bound}: it will not show; raise --minutes")
    return probes


def judge(plan):
    """Every route of z_i on captions never trained, as `dalle2 study prior` does.

    Returns:
        wanted: Wanted; routes: {route: Judgement}; cosines of the prior; retrieval of
        CLIP; protocol: what stands beside the numbers.
    """
    from dalle2_jax.cli.sample import ways
    from dalle2_jax.evaluate.prior_importance import (
        clip_retrieval,
        cosines,
        prior_importance,
    )
    from dalle2_jax.evaluate.protocol import model_facts
    from dalle2_jax.evaluate.wanted import of_world
    from dalle2_jax.evaluate.yardstick import facts, yardstick
    from dalle2_jax.unclip import load

    model = load(plan.folder / "model")
    wanted = of_world(plan.world, plan.captions, plan.seed)
    measure = yardstick(model, wanted)
    routes = prior_importance(model, measure, plan.seed)
    drawn = model_facts(
        plan.folder / "model", model, ways(model, None, None), plan.seed
    )
    return {
        "wanted": wanted,
        "routes": routes,
        "cosines": cosines(measure, routes)["full_stack"],
        "retrieval": clip_retrieval(measure),
        "protocol": facts(measure, "frechet", drawn),
    }
