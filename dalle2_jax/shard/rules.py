"""Which part of which array lives where: one table of name patterns.

Models know no mesh. A rule names the layout of an array's LAST axes, so the same row
serves a kernel and a stack of kernels of scanned layers. The first match wins; the
optimizer's moments and the EMA end in the same names as the parameters and follow them.
"""

import math
import re

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from dalle2_jax.errors import BadInput

RULES = [
    # into a wider or per-head space: columns over tensor
    (r".*/(q|k|v|up|context_k|context_v)/kernel", ("fsdp", "tensor")),
    # and back: rows over tensor
    (r".*/(out|down)/kernel", ("tensor", "fsdp")),
    (r".*/embedding", (None, "fsdp")),
    (r".*/kernel", (None, "fsdp")),
    (r".*", ()),
]


def shardings(shapes, mesh, rules=RULES):
    """The NamedSharding of every leaf of a tree of shapes.

    Where the last axis is not divisible by its mesh axis, the one before it is taken;
    an axis that its mesh axis does not divide stays whole.

    Raises:
        BadInput: no rule matches a leaf; names it.
    """

    def one(path, leaf):
        name = "/" + jax.tree_util.keystr(path, simple=True, separator="/")
        specs = [spec for pattern, spec in rules if re.fullmatch(pattern, name)]
        if not specs:
            raise BadInput(f"no sharding rule matches {name}; add a row to the table.")
        return NamedSharding(mesh, _fit(specs[0], leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(one, shapes)


def _fit(spec, shape, mesh):
    if len(spec) > len(shape):
        return P()
    full = (None,) * (len(shape) - len(spec)) + tuple(spec)
    divides = [_whole(axes, size, mesh) for axes, size in zip(full, shape)]
    fitted = [axes if ok else None for axes, ok in zip(full, divides)]
    if len(spec) > 1 and not divides[-1] and fitted[-2] is None:
        fitted[-2] = full[-1] if _whole(full[-1], shape[-2], mesh) else None
    return P(*fitted)


def _whole(axes, size, mesh):
    names = axes if isinstance(axes, tuple) else (axes,)
    return axes is None or size % math.prod(mesh.shape[n] for n in names) == 0
