"""The mesh of devices and how a batch gets onto it.

Axes: `data` (replicas, across slices), `fsdp` (parameters and batch), `tensor`. What
used to be called pjit is `jax.jit` with `NamedSharding` on such a mesh.
"""

import dataclasses
import math

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from dalle2_jax.errors import BadInput

AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; -1 in one of them takes what the others leave."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


def make_mesh(cfg, devices=None):
    """The named mesh over `devices` (default: all of this run).

    Raises:
        BadInput: the axes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [getattr(cfg, axis) for axis in AXES]
    known = math.prod(size for size in sizes if size > 0)
    sizes = [size if size > 0 else len(devices) // known for size in sizes]
    if math.prod(sizes) != len(devices):
        raise BadInput(
            f"mesh {dict(zip(AXES, sizes))} does not cover {len(devices)} devices; "
            "set config.mesh so that data x fsdp x tensor is that number."
        )
    # Auto: explicit axes would make convolutions over sharded kernels an error.
    kinds = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(tuple(sizes), AXES, axis_types=kinds, devices=devices)


def batch_sharding(mesh):
    """The layout of a batch: its first axis over `data` and `fsdp`."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def replicated(mesh):
    """The layout of what every device holds whole."""
    return NamedSharding(mesh, P())


def to_devices(mesh, local):
    """A global batch from the part that this process has read.

    Args:
        mesh: the run's mesh.
        local: tree of NumPy arrays [batch / processes, ...].

    Returns:
        The same tree of global arrays [batch, ...].
    """
    layout = batch_sharding(mesh)
    put = jax.make_array_from_process_local_data
    return jax.tree.map(lambda x: put(layout, np.asarray(x)), local)


def check_batch(mesh, batch):
    """Refuses a batch that cannot be split evenly over the mesh.

    Raises:
        BadInput: names the batch and what it must be a multiple of.
    """
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch % parts:
        raise BadInput(
            f"config.batch = {batch} cannot be split over {parts} devices; "
            f"make it a multiple of {parts}."
        )
