"""How fast a stage trains here: its compiled step on made-up batches, nothing read."""

import dataclasses
import resource
import time
from typing import NamedTuple

import jax
import numpy as np

from dalle2_jax.components import initial_params
from dalle2_jax.data.batches import Captioned
from dalle2_jax.diffusion.walk import seed_key
from dalle2_jax.shard.mesh import check_batch, make_mesh, replicated, to_devices
from dalle2_jax.shard.processes import spread
from dalle2_jax.shard.rules import shardings
from dalle2_jax.train.cost import measured_peak, model_flops, with_remat
from dalle2_jax.train.optim import optimizer
from dalle2_jax.train.state import create_state
from dalle2_jax.train.step import step_of


class Timing(NamedTuple):
    """What `bench_train` measures.

    Seconds: compile_s; step_s, the median of the steps; fastest_s, slowest_s, their
    10th and 90th percentiles. flops_per_step: of the model, nothing counted that is
    recomputed; peak_flops: of all devices in matrix products, measured now; mfu: the
    share of it. program_bytes: what the compiler says that a step needs on a device,
    arguments included; peak_bytes: at most in use since the process began, of one
    device or, where that is not told, of the process.
    """

    device: str
    devices: int
    stage: str
    parameters: int
    batch: int
    accumulate: int
    remat: bool
    dtype: str
    compile_s: float
    step_s: float
    fastest_s: float
    slowest_s: float
    images_per_s: float
    flops_per_step: float
    peak_flops: float
    mfu: float
    program_bytes: int
    peak_bytes: int
    bytes_of: str


def bench_train(run, clip_cfg, steps):
    """Compiles and times the train step of a run.

    Args:
        run: Run.
        clip_cfg: of the frozen CLIP, whose weights are made up; None for stages
            without.
        steps: how many are timed, after two that are not.

    Returns:
        Timing.
    """
    mesh = make_mesh(run.mesh)
    check_batch(mesh, run.batch)
    tx = optimizer(run.optim, run.steps)
    given = made_up(run, clip_cfg, tx, mesh)
    state, frozen, batch, _ = given
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    flops = model_flops(run, clip_cfg, state.params, frozen, batch)
    began = time.perf_counter()
    step = step_of(run, clip_cfg, tx, state, mesh).lower(*given).compile()
    compiled = time.perf_counter() - began
    seconds = timed(step, given, steps)
    fastest, median, slowest = np.quantile(seconds, (0.1, 0.5, 0.9)).tolist()
    memory, of = peak_memory(mesh.local_devices[0])
    peak = peak_of_all(mesh)
    return Timing(
        device=mesh.devices.flat[0].device_kind,
        devices=mesh.size,
        stage=run.stage,
        parameters=parameters,
        batch=run.batch,
        accumulate=run.accumulate,
        remat=any(fields_of(run.model, "remat")),
        dtype="/".join(sorted(set(fields_of(run.model, "dtype")))) or "float32",
        compile_s=compiled,
        step_s=median,
        fastest_s=fastest,
        slowest_s=slowest,
        images_per_s=run.batch / median,
        flops_per_step=flops,
        peak_flops=peak,
        mfu=flops / median / peak,
        program_bytes=program_memory(step),
        peak_bytes=memory,
        bytes_of=of,
    )


def timed(step, given, steps):
    """Seconds of each of some steps, one waited for after the other; two run before.

    step: compiled, donates the state; given: (state, frozen, batch, key).
    """
    (state, *rest), seconds = given, []
    for _ in range(steps + 2):
        began = time.perf_counter()
        state, metrics = step(state, *rest)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - began)
    return seconds[2:]


def made_up(run, clip_cfg, tx, mesh):
    """What a step takes: fresh state, random CLIP, random pictures and tokens, key."""
    params = initial_params(run.stage, run.model, run.seed)
    state = create_state(params, tx, mesh, len(run.optim.ema_more))
    frozen = {}
    if clip_cfg is not None:
        weights = initial_params("clip", clip_cfg, run.seed)
        frozen = {"clip": spread(weights, shardings(weights, mesh))}
    text = getattr(clip_cfg or run.model, "text", None)  # upsamplers read none
    rng = np.random.default_rng(run.seed)
    share = run.batch // jax.process_count()
    image = rng.integers(0, 256, (share, run.data.size, run.data.size, 3), np.uint8)
    words = rng.integers(0, text.vocab if text else 1, (share, run.data.context))
    batch = to_devices(mesh, Captioned(image, words.astype(np.int32)))
    key = jax.jit(lambda: seed_key(run.seed), out_shardings=replicated(mesh))()
    return state, frozen, batch, key


def peak_of_all(mesh):
    """flop/s in matrix products, measured; CPU devices share one machine."""
    count = 1 if mesh.devices.flat[0].platform == "cpu" else mesh.size
    return measured_peak(mesh.local_devices[0]) * count


def program_memory(step):
    """Bytes that a compiled step needs on one device; donated ones count once."""
    found = step.memory_analysis()
    outside = found.argument_size_in_bytes + found.output_size_in_bytes
    return outside - found.alias_size_in_bytes + found.temp_size_in_bytes


def peak_memory(device):
    """(bytes at most in use so far, of what): a device's, or this process's."""
    stats = device.memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"], "device"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "process"


def fields_of(cfg, name):
    """The values of every field of that name in a configuration and its parts."""
    if not dataclasses.is_dataclass(cfg):
        return []
    parts = [(f.name, getattr(cfg, f.name)) for f in dataclasses.fields(cfg)]
    found = [value for known, value in parts if known == name]
    return found + [deep for _, value in parts for deep in fields_of(value, name)]


def varied(run, batch=None, remat=None):
    """The run with another batch, or rematerialised wherever it can be or nowhere."""
    model = run.model if remat is None else with_remat(run.model, remat)
    return dataclasses.replace(run, batch=batch or run.batch, model=model)
