"""What `dalle2 evaluate` does with pictures: opens both sides, judges, tells."""

import contextlib
import shutil
import tempfile
from pathlib import Path


def judge_pictures(args):
    """Samples against a reference, on all processes of the run."""
    from dalle2_jax.cli.machine import join

    join(args)
    from dalle2_jax.cli.score_table import print_table, refuse_other, warn, write_scores
    from dalle2_jax.cli.two_sides import opened
    from dalle2_jax.evaluate.judge import check, settings_of
    from dalle2_jax.shard.processes import barrier, is_first

    setup, material = opened(args)
    check(setup, material)
    settings = settings_of(setup, material, args.unit)
    if args.out:
        refuse_other(args.out, settings)
    if is_first():
        warn(setup, material)
    with work_folder(args) as work:
        found = run_to_end(args, setup, material, work)
        if is_first():
            scores, *sides = found
            export(args, setup, [side for side in sides if side is not None])
            print_table(scores)
            if args.out:
                write_scores(args.out, scores, settings)
        barrier("evaluated")


def run_to_end(args, setup, material, work):
    """`judge` under a progress bar, stopping between batches when it is asked to."""
    from dalle2_jax.cli.progress import Progress
    from dalle2_jax.evaluate.collect import Pace
    from dalle2_jax.evaluate.judge import judge
    from dalle2_jax.shard.processes import is_first
    from dalle2_jax.train.loop import Stop

    sets = {"samples": material.samples, "reference": material.reference}
    stages = [(name, one.count) for name, one in sets.items() if one is not None]
    lasting = args.work or args.out
    stopping = Stop() if lasting else contextlib.nullcontext()
    with stopping as stop, Progress(stages) as progress:

        def show(name, count):
            if not is_first():
                return
            if progress.stage != name:
                progress.begin(name)
            progress.show(count, {})

        pace = Pace(args.unit, args.batch, *([stop.here] if stop else []))
        keep = keeper(args, material)
        return judge(setup, material, work, pace._replace(show=show), keep)


@contextlib.contextmanager
def work_folder(args):
    """The folder of the parts; one that was not named is removed at the end.

    Raises:
        BadInput: several processes have no place that they share.
    """
    from dalle2_jax.cli.main import several
    from dalle2_jax.errors import BadInput
    from dalle2_jax.shard.processes import is_first

    if args.work:
        yield args.work
    elif args.out:
        folder = args.out.with_name(f"{args.out.name}.work")
        yield folder
        if is_first():
            shutil.rmtree(folder, ignore_errors=True)
    elif several():
        raise BadInput("several processes need --work, a folder that all of them see.")
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def keeper(args, material):
    """What writes the samples as PNGs, their provenance inside; None where unasked."""
    from dalle2_jax.data.provenance import save_picture

    if args.keep_samples is None:
        return None
    folder = png_folder(args.keep_samples)
    folder.mkdir(parents=True, exist_ok=True)
    captions, facts = material.samples.captions, dict(material.facts)

    def keep(number, picture):
        said = {} if captions is None else {"caption": captions[number]}
        save_picture(
            folder / f"{number:06d}.png", picture, said | facts | {"sample": number}
        )

    return keep


def png_folder(place):
    """Where the PNGs go: a folder, or beside the .npz that they end up in."""
    return place.with_suffix("") if place.suffix == ".npz" else place


def export(args, setup, sides):
    """Writes what else was asked for: the reference's statistics, the samples' .npz."""
    import numpy as np

    from dalle2_jax.evaluate.pictures import folder_pictures
    from dalle2_jax.evaluate.statistics import write_statistics

    if args.write_reference:
        write_statistics(args.write_reference, sides[-1], setup.main, setup.protocol)
        print(f"statistics of {sides[-1].count} pictures in {args.write_reference}")
    if args.keep_samples and args.keep_samples.suffix == ".npz":
        kept = folder_pictures(png_folder(args.keep_samples))
        images = kept.fetch(range(sides[0].count))
        np.savez(args.keep_samples, arr_0=images)
