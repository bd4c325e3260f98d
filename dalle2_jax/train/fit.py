"""Trains one stage from its configuration to a finished component, resuming by itself.

workdir/config.json  checkpoints/<step>/  metrics.jsonl  skipped_steps.jsonl  logs/
        samples/  profile/
"""

import functools
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax

from dalle2_jax.components import read_json, save_component
from dalle2_jax.data import store_requests
from dalle2_jax.data.examples import write_examples
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.diffusion.walk import seed_key
from dalle2_jax.errors import BadInput, Failed, Preempted
from dalle2_jax.files import Lock, local_path
from dalle2_jax.shard.mesh import check_batch, make_mesh, replicated, to_devices
from dalle2_jax.shard.processes import in_step, is_first
from dalle2_jax.train.agreement import check_tokens
from dalle2_jax.train.begin import begin, claimed, decided_by_first, prepared
from dalle2_jax.train.checkpoint import Checkpoints
from dalle2_jax.train.cost import mesh_peak, model_flops
from dalle2_jax.train.inputs import (
    borrow_clip,
    obtain_tokenizer,
    open_batches,
    open_source,
    skip_log,
)
from dalle2_jax.train.judged import judge_hook
from dalle2_jax.train.ledger import FILE, Astray, Ledger, append, position_at, returns
from dalle2_jax.train.loop import Stop, train
from dalle2_jax.train.measure import with_squares
from dalle2_jax.train.metrics import Clock, Feed, log_hook, open_log
from dalle2_jax.train.optim import optimizer
from dalle2_jax.train.run import as_dict
from dalle2_jax.train.same_data import position_in, settle_data, summary_in
from dalle2_jax.train.samples import sample_hook
from dalle2_jax.train.step import step_of
from dalle2_jax.train.trace import Trace


class Job(NamedTuple):
    """Where a run reads and writes, and who looks on.

    data: tar shards, as a pattern or list; workdir: the run directory; model: the model
    directory that lends frozen components and takes the finished one; init: a model
    directory whose component the run starts from; ema: decay of the average that
    becomes the component (None: Optim.ema); wandb: a project of Weights & Biases;
    profile: (first, last) step of a trace; judge: what `judged.judge_hook` is given;
    other_data: whether a run that has begun may go on with other data.
    """

    data: Any
    workdir: Path
    model: Path
    init: Path | None = None
    ema: float | None = None
    wandb: str | None = None
    profile: tuple | None = None
    judge: Any = None
    other_data: bool = False


class Work(NamedTuple):
    """What a run has open. data: what checkpoints keep of it; lock: of process 0."""

    mesh: Any
    source: Any
    tokenizer: Any
    clip_cfg: Any
    frozen: Any
    tx: Any
    checkpoints: Checkpoints
    data: dict
    lock: Lock | None


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
        Failed: a checkpoint could not be written, none is intact, or too many steps
            were bad.
        Preempted: a stop was asked for and the state is committed.
    """
    job = job._replace(
        workdir=local_path(job.workdir),
        model=local_path(job.model),
        init=job.init and local_path(job.init),
    )
    _check(run, job)
    with claimed(job.workdir, run, job.init) as lock:
        return _fit(run, job, lock, show)


def _fit(run, job, lock, show):
    """`fit` in a run directory that is its own."""
    work = open_work(run, job, lock)
    store_requests.stay()
    with Stop(store_requests.leave) as stop, closing(work.checkpoints):
        state, seconds = trained(run, job, work, stop, show)
    if stop.asked and int(state.step) < run.steps:
        raise Preempted(
            f"stopped at step {int(state.step)} of {run.steps}, which is saved in "
            f"{job.workdir}; run the same command again to go on."
        )
    config = read_json(job.workdir / "config.json", "run the same command again")
    params = average(run, job, state)
    config = with_squares(run, config, work, params)
    save_component(job.model, run.stage, config, params)
    if isinstance(work.tokenizer, Tokenizer) and is_first():
        write_examples(job.model, work.source.captions())
    return seconds


def open_work(run, job, lock):
    """Opens everything that outlives a return to an older checkpoint: Work."""
    mesh = make_mesh(run.mesh)
    check_batch(mesh, run.batch)
    source = open_source(run, job)
    settle = functools.partial(settle_data, job.workdir, source, job.other_data)
    decided_by_first("data", settle)
    tokenizer = obtain_tokenizer(run, job, source)
    clip_cfg, frozen = borrow_clip(run, job, mesh, source)
    check_tokens(run, clip_cfg, tokenizer, job.model)
    tx = optimizer(run.optim, run.steps)
    folder = job.workdir / "checkpoints"
    checkpoints = Checkpoints(folder, run.keep, run.keep_every)
    lent, data = (tokenizer, clip_cfg, frozen), summary_in(job.workdir)
    return Work(mesh, source, *lent, tx, checkpoints, data, lock)


def trained(run, job, work, stop, show):
    """The state after the last step, and seconds by phase.

    Where too many steps are bad and the guard says so, it goes back to a checkpoint
    from before the first of them, and on with the data that come next.
    """
    prepare = functools.partial(prepared, run, job, work)
    state, position = begin(run, work.tx, work.mesh, work.checkpoints, prepare)
    position = position_at(job.workdir, int(state.step), position)
    if work.checkpoints.manager.all_steps():
        then = work.checkpoints.data_of(int(state.step))
        position = position_in(position, then, work.data)
    step = in_step(step_of(run, work.clip_cfg, work.tx, state, work.mesh))
    key = jax.jit(lambda: seed_key(run.seed), out_shardings=replicated(work.mesh))()

    def update(state, batch):
        return step(state, work.frozen, batch, key)

    while True:
        log = skip_log(job.workdir)
        batches = open_batches(run, work.source, work.tokenizer, position, log)
        feed = Feed(batches, functools.partial(to_devices, work.mesh))
        try:
            with closing(batches):
                return walk(run, job, work, state, update, feed, stop, show)
        except Astray as astray:
            position = feed.used
            state = gone_back(run, job, work, astray.first, position)


def walk(run, job, work, state, update, feed, stop, show):
    """The loop from a state on, with its hooks: (last state, seconds by phase)."""
    log = open_log(job.workdir, int(state.step), job.wandb, as_dict(run))
    trace = Trace(job.workdir / "profile", job.profile, int(state.step))
    ledger = Ledger(feed, run, job.workdir)
    clock = Clock(feed, run.batch, functools.partial(share_of_peak, run, work))

    def own(moment):
        if work.lock is not None:
            work.lock.check()

    def save(state):
        work.checkpoints.save(state, feed.used, as_dict(run), work.data)

    hooks = [
        (1, own),
        (1, clock.tick),
        (1, trace.tick),
        (1, ledger.note),
        (run.log_every, log_hook(log, ledger, clock, show)),
        (run.save_every, lambda moment: save(moment.state)),
    ]
    if run.sample_every:
        hook = sample_hook(run, work.clip_cfg, work.frozen, job.workdir, log)
        hooks.append((run.sample_every, hook))
    if run.evaluate.every and job.judge:
        hook = judge_hook(run, work, job.judge, log)
        hooks.append((run.evaluate.every, hook))
    with closing(log), closing(trace):
        state = train(state, update, feed, hooks, run.steps, stop)
        ledger.settle()
        save(jax.block_until_ready(state))
    return state, clock.phases()


def share_of_peak(run, work, moment):
    """MFU of a step per second: a step's operations over those of all devices."""
    params, batch = moment.state.params, moment.batch
    operations = model_flops(run, work.clip_cfg, params, work.frozen, batch)
    jax.block_until_ready(moment.metrics)  # the peak is measured on idle devices
    return operations / mesh_peak(work.mesh)


def gone_back(run, job, work, first, position):
    """The newest intact state from before step `first`; later ones are removed.

    position: of the data, which go on from there.

    Raises:
        Failed: there is no such state, or it has gone back often enough.
    """
    before = returns(job.workdir)
    if len(before) >= run.guard.rollbacks:
        raise Failed(
            f"{job.workdir} has gone back {len(before)} times and steps from {first} "
            f"on are bad again, see {job.workdir / FILE}; mend the data, or raise "
            "config.guard.rollbacks, and run the same command again."
        )
    work.checkpoints.drop(first)
    if not work.checkpoints.manager.all_steps():
        raise Failed(
            f"{job.workdir} holds no checkpoint from before step {first}, the first of "
            "too many bad ones; lower config.optim.rate or config.save_every and start "
            "in a new --workdir."
        )
    state, _ = begin(run, work.tx, work.mesh, work.checkpoints)
    append(job.workdir, {"rollback": int(state.step), "position": position})
    return state


def average(run, job, state):
    """The average of the parameters that becomes the component, as Job.ema says."""
    decays = (run.optim.ema, *run.optim.ema_more)
    chosen = decays.index(run.optim.ema if job.ema is None else job.ema)
    return (state.ema, *state.emas)[chosen]


def _check(run, job):
    """Raises BadInput for an average that is not kept or a profile of no steps."""
    decays = (run.optim.ema, *run.optim.ema_more)
    if job.ema is not None and job.ema not in decays:
        raise BadInput(
            f"--ema {job.ema:g} is not kept by this run, which has "
            f"{', '.join(f'{d:g}' for d in decays)}; name one of them, or begin a run "
            "with it in config.optim.ema_more."
        )
    first, last = job.profile or (1, 1)
    if not 0 < first <= last <= run.steps:
        raise BadInput(
            f"--profile {first}:{last} is no range of steps of this run, which are 1 "
            f"to {run.steps}."
        )
