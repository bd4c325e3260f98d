"""Where a block's weights and activations lie: a question that a mesh may answer.

Models know no mesh. Whoever does enters `placing` around their call; without it
everything here leaves its argument as it is.
"""

import contextlib
import contextvars
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn


class Placement(NamedTuple):
    """Answers for the blocks of a network.

    weights: (a block's parameters, its compute dtype) -> the same for use in it, asked
    inside of rematerialisation; activations: x [b, ...] -> x, between blocks.
    """

    weights: Callable
    activations: Callable


_PLACEMENT = contextvars.ContextVar("placement", default=None)


@contextlib.contextmanager
def placing(placement):
    """Networks called inside ask `placement`, a Placement or None."""
    token = _PLACEMENT.set(placement)
    try:
        yield
    finally:
        _PLACEMENT.reset(token)


def placed(module, dtype):
    """A module class whose parameters are placed before it uses them.

    module: subclass of nn.Module; dtype: the one in which it multiplies. Paths of
    parameters stay what they are.
    """
    placement = _PLACEMENT.get()
    if placement is None:
        return module

    def prepare(variables):
        return {"params": placement.weights(variables["params"], dtype)}

    return nn.map_variables(module, "params", trans_in_fn=prepare)


def along_batch(x):
    """Activations [b, ...] as they lie between blocks."""
    placement = _PLACEMENT.get()
    return x if placement is None else placement.activations(x)
