"""What a step sends, beside the least that fully sharded training can do with.

That least is: every weight gathered twice (forward, backward) and its gradient reduced
once, a frozen weight gathered once, in the dtypes they are used in. Weights that are
not split have their gradients summed everywhere, which is twice their size.
"""

import collections
import dataclasses
import math
from typing import NamedTuple

import jax

from dalle2_jax.shard.gather import IN_BLOCKS

NOTABLE = 0.002  # of the least, above which traffic that is no weight's is named
PADDING = 1.2  # of gradients whose columns do not fill the compiler's tiles
WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}


class Traffic(NamedTuple):
    """Bytes that a device receives per step.

    kinds: {kind: (collectives, bytes)}; total, least; excess: Collectives that are
    neither weights nor gradients, the largest first.
    """

    kinds: dict
    total: float
    least: float
    excess: list

    @property
    def ratio(self):
        """total / least; 1 where neither sends anything."""
        return self.total / self.least if self.least else float(self.total == 0) or 1e9


def traffic(found, program, width):
    """Traffic of a compiled step.

    Args:
        found: list of Collective.
        program: Program.
        width: bytes of the compute dtype.
    """
    kinds = collections.defaultdict(lambda: [0, 0.0])
    for one in found:
        kinds[one.kind][0] += one.times
        kinds[one.kind][1] += one.times * one.bytes
    state, frozen = program.shapes[:2]
    least = least_bytes(state.params, width, trained=True)
    least += least_bytes(frozen, width, trained=False)
    known = weight_sizes(state.params) | weight_sizes(frozen)
    others = [one for one in found if is_other(one, known, NOTABLE * least)]
    others.sort(key=lambda one: -one.bytes * one.times)
    total = sum(size for _, size in kinds.values())
    return Traffic({k: tuple(v) for k, v in kinds.items()}, total, least, others)


def least_bytes(params, width, trained):
    """The least bytes that a device receives for these parameters.

    params: nested dict of ShapeDtypeStructs with shardings; width: bytes of a number in
    compute.
    """
    total = 0.0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = "/" + jax.tree_util.keystr(path, simple=True, separator="/")
        inside = IN_BLOCKS.fullmatch(name) and name.endswith("/kernel")
        size = math.prod(leaf.shape) * (width if inside else leaf.dtype.itemsize)
        mesh, spec = leaf.sharding.mesh.shape, leaf.sharding.spec
        size /= mesh["tensor"] if "tensor" in spec else 1
        shards = mesh["fsdp"] if "fsdp" in spec else 1
        gathered = size * (shards - 1) / shards * (3 if trained else 1)
        copies = math.prod(mesh.values()) // shards
        copies //= mesh["tensor"] if "tensor" in spec else 1
        total += gathered
        total += trained * 2 * size / shards * (copies - 1) / copies
    return total


def weight_sizes(params):
    """Numbers of elements in which weights and gradients travel."""
    sizes = set()
    for leaf in jax.tree.leaves(params):
        count = math.prod(leaf.shape)
        stack = leaf.shape[0] if leaf.shape else 1
        mesh = leaf.sharding.mesh.shape
        for part in (1, mesh["tensor"]):
            for shards in (1, mesh["fsdp"]):
                sizes |= {count / shards / part, count / stack / shards / part}
    return sizes


def is_other(one, known, least):
    """Whether a collective moves something else than weights, and enough of it."""
    if one.bytes * one.times <= least:
        return False
    counts = [_count(shape) for shape in one.shapes if not shape.startswith("u32[]")]
    padding = PADDING if one.kind == "reduce-scatter" else 1.0
    return not all(
        count == 1 or any(size <= count <= size * padding for size in known)
        for count in counts
    )


def compute_width(run):
    """Bytes of the narrowest dtype that a run's configuration names.

    Under sharpness-aware minimisation weights travel as they are stored: a perturbation
    of 1e-5 of a weight does not survive bfloat16.
    """
    if run.optim.sam_rho:
        return WIDTHS["float32"]
    found = [WIDTHS[name] for name in _dtypes(run.model)]
    return min(found, default=4)


def _dtypes(cfg):
    for field in dataclasses.fields(cfg):
        value = getattr(cfg, field.name)
        if field.name == "dtype":
            yield value
        elif dataclasses.is_dataclass(value):
            yield from _dtypes(value)


def _count(shape):
    inner = shape[shape.index("[") + 1 : -1]
    return math.prod(int(n) for n in inner.split(",") if n)
