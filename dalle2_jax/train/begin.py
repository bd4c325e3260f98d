"""How a run begins: its directory, its first parameters, or where it stopped."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from dalle2_jax.components import (
    expected_shapes,
    flatten,
    initial_params,
    load_component,
    read_json,
    unflatten,
    write_json,
)
from dalle2_jax.errors import BadInput, Failed
from dalle2_jax.files import Lock
from dalle2_jax.shard.processes import barrier, is_first
from dalle2_jax.train.checkpoint import anywhere
from dalle2_jax.train.inputs import open_batches
from dalle2_jax.train.losses import LOSSES
from dalle2_jax.train.optim import rate_schedule
from dalle2_jax.train.pca import with_tables
from dalle2_jax.train.prepare import fit_tables
from dalle2_jax.train.run import Run, as_dict, difference, run_from
from dalle2_jax.train.state import create_state, fresh_state, state_layout
from dalle2_jax.train.verify import steps_of


@contextlib.contextmanager
def claimed(workdir: Path, run: Run, init: Path | None = None) -> Iterator[Lock | None]:
    """Makes the run directory this run's own while the block lasts, or refuses it.

    Args:
        workdir: made where it is absent.
        run: Run.
        init: the model directory that the run starts from, noted at its beginning.

    Yields:
        The Lock on process 0, None on others.

    Raises:
        BadInput: it holds another configuration (names the field), another process that
            lives works in it (names it), it cannot be written, or the stage is none
            that is trained.
    """
    if run.stage not in LOSSES:
        raise BadInput(
            f"config.stage is {run.stage!r}, which is imported and sampled but not "
            f"trained here; stages to train are {', '.join(LOSSES)}."
        )
    origin = provenance(init, run.stage)
    with contextlib.ExitStack() as stack:
        lock = Lock(workdir, "choose another --workdir")

        def take():
            stack.enter_context(lock)
            _write_config(workdir, run, origin)

        decided_by_first("run directory", take)
        yield lock if is_first() else None


def _write_config(workdir, run, origin):
    """config.json of a run directory, where it is new or of this very run."""
    path = workdir / "config.json"
    if path.exists():
        found = read_json(path, "remove the directory or choose another")
        old = run_from(found)
        origin = found.get("provenance")
        field = difference(run, old)
        if field:
            raise BadInput(
                f"{workdir} holds a run with another {field}; continue it with its own "
                "configuration or choose another --workdir."
            )
        _check_length(workdir, run, old)
    try:
        known = {"provenance": origin} if origin else {}
        write_json(path, {**as_dict(run), **known})
    except OSError as error:
        raise BadInput(
            f"{workdir} cannot be written ({error.strerror}); choose another --workdir."
        ) from error


def _check_length(workdir, run, old):
    """Refuses an end that lies behind; says what hangs on an end that has moved."""
    reached = max(steps_of(workdir), default=0)
    if run.steps < reached:
        raise BadInput(
            f"config.steps is {run.steps}, and {workdir} has reached step {reached}; "
            "take as many or more, or choose another --workdir."
        )
    if run.steps == old.steps or not reached:
        return
    before, after = (
        float(rate_schedule(run.optim, steps)(reached))
        for steps in (old.steps, run.steps)
    )
    rate = f"the learning rate at step {reached} stays {after:.3g}"
    if before != after:
        rate = (
            "the learning rate falls along its cosine to the new end from here on, at "
            f"step {reached} from {before:.3g} to {after:.3g} at once"
        )
    logging.getLogger("dalle2_jax").warning(
        "config.steps is %d, %d before: %s", run.steps, old.steps, rate
    )


def decided_by_first(name: str, call: Callable[[], None]) -> None:
    """Runs call() on process 0; where it fails, it fails on every process.

    Args:
        name: says where, should a process be missing.
        call: raises BadInput, Failed or OSError to stop the run.

    Raises:
        BadInput, Failed, OSError: the call's own on process 0, BadInput on others.
    """
    error = None
    if is_first():
        try:
            call()
        except (BadInput, Failed, OSError) as found:
            error = found
    barrier(name)
    if anywhere(error is not None):
        raise error or BadInput(f"{name}: refused by process 0, which says why.")


def begin(run, tx, mesh, checkpoints, prepare=lambda params, mesh: params):
    """The newest intact state and its data position, or a fresh state and 0.

    prepare: (first parameters, mesh) -> those that a fresh state starts from.
    """
    averages = len(run.optim.ema_more)
    params = initial_params(run.stage, run.model, run.seed)
    if not checkpoints.manager.all_steps():
        return create_state(prepare(params, mesh), tx, mesh, averages), 0
    shapes = jax.eval_shape(lambda p: fresh_state(p, tx, averages), params)
    like = jax.tree.map(
        lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
        shapes,
        state_layout(shapes, mesh),
    )
    return checkpoints.restore(like)


def prepared(run, job, work, params, mesh):
    """What a fresh run starts from: another component, or what the data give."""
    if job.init is not None:
        return inherited(run, job.init)
    if run.codes:
        return with_tables(run, params)
    if not run.codes_from:
        return params
    batches = open_batches(run, work.source, work.tokenizer, 0)
    return fit_tables(run, work.clip_cfg, work.frozen, params, batches, mesh)


def inherited(run, folder):
    """The parameters of a trained or imported component of the same sizes.

    Raises:
        BadInput: it is absent, or of other sizes; names the first that differs.
    """
    found = flatten(load_component(folder, run.stage).params)
    wanted = expected_shapes(run.stage, run.model)
    for name in (*wanted, *found):
        have = found[name].shape if name in found else None
        if have != wanted.get(name):
            raise BadInput(
                f"{folder}/{run.stage}: {name} is {have or 'absent'}, config.model "
                f"asks for {wanted.get(name) or 'none'}; give the run the model of "
                f"{folder}/{run.stage}/config.json."
            )
    return unflatten({name: x.astype("float32") for name, x in found.items()})


def provenance(init, stage):
    """What config.json says of the component a run starts from, or None."""
    if init is None:
        return None
    path = Path(init) / stage / "config.json"
    about = read_json(path, f"--init needs a model directory with a {stage}")
    names = ("steps", "seed", "provenance")
    return {"init": str(init), **{k: about[k] for k in names if k in about}}
