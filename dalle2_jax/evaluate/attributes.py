"""unCLIP §5: does a picture show what its caption says?

On a generated world this has an exact answer: the pictures are read back and compared
with what was asked, attribute by attribute.
"""

import numpy as np

from dalle2_jax.data.read_shapes import read
from dalle2_jax.data.score_shapes import score

READABLE = ("simple", "pairs")  # worlds whose pictures can be read back


def accuracy(specs, world, images):
    """Fractions right by attribute, their standard errors, and n.

    A world that cannot be read back (READABLE) has no attributes, only n.
    """
    right = score(specs, read(images, world)) if world in READABLE else {}
    mean = {name: float(values.mean()) for name, values in right.items()}
    n = len(images)
    error = {name: float(np.sqrt(p * (1 - p) / n)) for name, p in mean.items()}
    return {"accuracy": mean, "standard_error": error, "n": n}
