"""What a step costs, and what the devices could do: the two sides of the MFU."""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp

from dalle2_jax.shard.flops import flops_of
from dalle2_jax.shard.hardware import peak_of
from dalle2_jax.train.losses import LOSSES
from dalle2_jax.train.optim import Sam, gradient

SIDES = {"cpu": 1024}  # of the matrices that the peak is measured with, by platform
KINDS = {"cpu": jnp.float32}
SIDE, KIND = 8192, jnp.bfloat16


def model_flops(run, clip_cfg, params, frozen, batch):
    """Operations of one step's gradient, with nothing counted that is recomputed.

    The frozen CLIP is part of it; microbatches change nothing. Traced, not compiled.

    Args:
        run: Run.
        clip_cfg: of the frozen CLIP, or None.
        params, frozen, batch: trees of arrays or ShapeDtypeStructs.
    """
    loss = LOSSES[run.stage](without_remat(run), clip_cfg)
    grad = gradient(loss, Sam(run.optim.sam_rho, run.optim.sam_group))
    shapes = jax.eval_shape(lambda *args: args, params, frozen, batch)
    return flops_of(grad, *shapes, jax.eval_shape(lambda: jax.random.key(0)))


def without_remat(run):
    """The same run, keeping every activation for the backward pass."""
    return dataclasses.replace(run, model=with_remat(run.model, False))


def with_remat(cfg, remat):
    """The same configuration with every field `remat` set."""
    changed = {
        field.name: with_remat(getattr(cfg, field.name), remat)
        for field in dataclasses.fields(cfg)
        if dataclasses.is_dataclass(getattr(cfg, field.name))
    }
    if any(field.name == "remat" for field in dataclasses.fields(cfg)):
        changed["remat"] = remat
    return dataclasses.replace(cfg, **changed)


def mesh_peak(mesh):
    """flop/s of all devices of a mesh: published for bfloat16, or measured here.

    Virtual CPU devices share the cores of their process, which count once.
    """
    device = mesh.local_devices[0]
    if device.platform == "cpu":
        return measured_peak(device) * jax.process_count()
    return (peak_of(device) or measured_peak(device)) * mesh.size


@functools.lru_cache
def measured_peak(device, repeats=5):
    """flop/s of one device in the product of two large square matrices, the best run.

    bfloat16, on CPUs float32.
    """
    side = SIDES.get(device.platform, SIDE)
    kind = KINDS.get(device.platform, KIND)
    x = jax.device_put(jnp.ones((side, side), kind), device)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(x, x))
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(product(x, x))
        spent.append(time.perf_counter() - began)
    return 2 * side**3 / min(spent)
