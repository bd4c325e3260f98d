"""Trains one stage from its configuration to a finished component, resuming by itself.

workdir/config.json  checkpoints/<step>/  metrics.jsonl  logs/  samples/
"""

import functools
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax

from dalle2_jax.components import (
    initial_params,
    read_json,
    save_component,
    write_json,
)
from dalle2_jax.errors import BadInput, Preempted
from dalle2_jax.shard.mesh import check_batch, make_mesh, replicated, to_devices
from dalle2_jax.shard.processes import barrier, is_first
from dalle2_jax.train.checkpoint import Checkpoints
from dalle2_jax.train.inputs import (
    borrow_clip,
    obtain_tokenizer,
    open_batches,
    open_source,
)
from dalle2_jax.train.loop import Stop, train
from dalle2_jax.train.losses import LOSSES
from dalle2_jax.train.metrics import Clock, Feed, log_hook, open_log
from dalle2_jax.train.optim import optimizer
from dalle2_jax.train.prepare import fit_tables
from dalle2_jax.train.run import as_dict, difference, run_from
from dalle2_jax.train.samples import sample_hook
from dalle2_jax.train.state import create_state, fresh_state, state_layout
from dalle2_jax.train.step import step_of


class Job(NamedTuple):
    """Where a run reads and writes.

    data: tar shards, as a pattern or list; workdir: the run directory; model: the model
    directory that lends frozen components and takes the finished one.
    """

    data: Any
    workdir: Path
    model: Path


def fit(run, job, show=None):
    """Trains until `run.steps`, then writes the component into the model directory.

    Args:
        run: Run.
        job: Job.
        show: called as show(step, metrics) at every log, for progress displays.

    Returns:
        Seconds by phase: {"compile", "train"}.

    Raises:
        BadInput: data, configuration or directories do not fit; names which.
        Failed: a checkpoint could not be written or none is intact.
        Preempted: a stop was asked for and the state is committed.
    """
    claim(job.workdir, run)
    barrier("run directory claimed")
    mesh = make_mesh(run.mesh)
    check_batch(mesh, run.batch)
    source = open_source(run, job)
    tokenizer = obtain_tokenizer(run, job, source)
    clip_cfg, frozen = borrow_clip(run, job, mesh)
    tx = optimizer(run.optim, run.steps)
    checkpoints = Checkpoints((job.workdir / "checkpoints").resolve(), run.keep)
    prepare = functools.partial(prepared, run, clip_cfg, frozen, source, tokenizer)
    state, position = begin(run, tx, mesh, checkpoints, prepare)
    step = step_of(run, clip_cfg, tx, state, mesh)
    batches = open_batches(run, source, tokenizer, position)
    feed = Feed(batches, functools.partial(to_devices, mesh))
    log = open_log(job.workdir, int(state.step))
    clock = Clock(feed, run.batch)

    def save(moment):
        checkpoints.save(moment.state, feed.used, as_dict(run))

    hooks = [
        (1, clock.tick),
        (run.log_every, log_hook(log, clock, show)),
        (run.save_every, save),
    ]
    if run.sample_every:
        hook = sample_hook(run, clip_cfg, frozen, job.workdir, log)
        hooks.append((run.sample_every, hook))
    key = jax.jit(jax.random.key, out_shardings=replicated(mesh))(run.seed)

    def update(state, batch):
        return step(state, frozen, batch, key)

    with Stop() as stop, closing(log), closing(checkpoints):
        state = train(state, update, feed, hooks, run.steps, stop)
        checkpoints.save(jax.block_until_ready(state), feed.used, as_dict(run))
    if stop.asked and int(state.step) < run.steps:
        raise Preempted(
            f"stopped at step {int(state.step)} of {run.steps}, which is saved in "
            f"{job.workdir}; run the same command again to go on."
        )
    save_component(job.model, run.stage, as_dict(run), state.ema)
    return clock.phases()


def claim(workdir, run):
    """Makes the run directory this run's own, or refuses one of another run.

    Raises:
        BadInput: it holds another configuration (names the field), cannot be written,
            or the stage is none that is trained.
    """
    if run.stage not in LOSSES:
        raise BadInput(
            f"config.stage is {run.stage!r}, which is imported and sampled but not "
            f"trained here; stages to train are {', '.join(LOSSES)}."
        )
    path = workdir / "config.json"
    if path.is_file():
        old = run_from(read_json(path, "remove the directory or choose another"))
        field = difference(run, old)
        if field:
            raise BadInput(
                f"{workdir} holds a run with another {field}; continue it with its own "
                "configuration or choose another --workdir."
            )
    if not is_first():
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(path, as_dict(run))
    except OSError as error:
        raise BadInput(
            f"{workdir} cannot be written ({error.strerror}); choose another --workdir."
        ) from error


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


def prepared(run, clip_cfg, frozen, source, tokenizer, params, mesh):
    """First parameters with what a stage takes from the data before its first step."""
    if not run.codes_from:
        return params
    batches = open_batches(run, source, tokenizer, 0)
    return fit_tables(run, clip_cfg, frozen, params, batches, mesh)
