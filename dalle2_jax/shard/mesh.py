"""The mesh of devices and how a batch gets onto it.

Axes: `data` (replicas, across slices), `fsdp` (parameters and batch), `tensor`. What
used to be called pjit is `jax.jit` with `NamedSharding` on such a mesh.
"""

import dataclasses
import math

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dalle2_jax.errors import BadInput

AXES = ("data", "fsdp", "tensor")
SHARDS = 16  # most that weights are split into unless a configuration asks for more


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; -1 in one of them takes what the others leave.

    -1 in both `data` and `fsdp`: weights are split into SHARDS, or as near as the
    number of devices in a slice permits, and `data` takes the rest. A sixteenth of the
    largest stage's state is 4 GB; finer shards of a matrix of 2048 columns are narrower
    than a TPU's tile, and the compiler gathers them at twice the traffic.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    slices: int = 0  # parts joined by a slower network, along `data`; 0: as found


def make_mesh(cfg, devices=None):
    """The named mesh over `devices` (default: all of this run).

    Neighbours on the network become neighbours on the mesh. Several slices of TPUs, or
    several hosts of GPUs with `slices`, divide the `data` axis, outermost: only sums of
    gradients cross between them.

    Raises:
        BadInput: the axes do not multiply to the number of devices, or the slices do
            not divide `data`.
    """
    devices = jax.devices() if devices is None else devices
    slices = cfg.slices or len({getattr(d, "slice_index", 0) for d in devices})
    sizes = [getattr(cfg, axis) for axis in AXES]
    if sizes[:2] == [-1, -1]:
        sizes[1] = math.gcd(len(devices) // (abs(cfg.tensor) * slices), SHARDS)
    known = math.prod(size for size in sizes if size > 0)
    sizes = [size if size > 0 else len(devices) // known for size in sizes]
    if math.prod(sizes) != len(devices):
        raise BadInput(
            f"mesh {dict(zip(AXES, sizes))} does not cover {len(devices)} devices; "
            "set config.mesh so that data x fsdp x tensor is that number."
        )
    # Auto: explicit axes would make convolutions over sharded kernels an error.
    kinds = (AxisType.Auto,) * len(AXES)
    return Mesh(_arranged(sizes, slices, devices), AXES, axis_types=kinds)


def _arranged(sizes, slices, devices):
    """Devices as an array of `sizes`."""
    found = {getattr(device, "slice_index", 0) for device in devices}
    if sizes[0] % slices:
        raise BadInput(
            f"config.mesh.data = {sizes[0]} is not a multiple of {slices} slices; set "
            "config.mesh so that it is."
        )
    if slices > 1:
        return mesh_utils.create_hybrid_device_mesh(
            (sizes[0] // slices, *sizes[1:]),
            (slices, 1, 1),
            devices,
            process_is_granule=len(found) == 1,
            allow_split_physical_axes=True,
        )
    if any(getattr(device, "core_on_chip", 0) for device in devices):
        return np.asarray(devices).reshape(sizes)  # two devices per chip
    return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)


def batch_sharding(mesh):
    """The layout of a batch: its first axis over `data` and `fsdp`."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def replicated(mesh):
    """The layout of what every device holds whole."""
    return NamedSharding(mesh, P())


def to_devices(mesh, local):
    """A global batch from the rows that this process has read.

    Args:
        mesh: the run's mesh.
        local: tree of NumPy arrays [rows, ...], the `local_rows` of a batch.

    Returns:
        The same tree of global arrays [batch, ...].
    """
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    mine = local_rows(mesh, parts)

    def one(x):
        each = len(x) // len(mine)

        def part(index):
            number = (index[0].start or 0) // each
            first = mine.index(number) * each
            return x[first : first + each]

        shape = (each * parts, *x.shape[1:])
        return jax.make_array_from_callback(shape, batch_sharding(mesh), part)

    return jax.tree.map(lambda x: one(np.asarray(x)), local)


def local_rows(mesh, batch):
    """The rows of a global batch that this process's devices hold, ascending."""
    held = batch_sharding(mesh).addressable_devices_indices_map((batch,)).values()
    return sorted({row for (part,) in held for row in range(*part.indices(batch))})


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
