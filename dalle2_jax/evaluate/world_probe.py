"""Linear probes of shape, colour, size and place on a frozen CLIP (see linear_probe).

Fitted on training pictures (no held-out pair), tested on fresh renders: of pairs that
were seen, and of pairs that never were.
"""

import numpy as np

from dalle2_jax.data.shapes import world_of
from dalle2_jax.data.write_shapes import evaluation_specs
from dalle2_jax.evaluate.clip_score import image_features
from dalle2_jax.evaluate.linear_probe import probe_accuracy

ATTRIBUTES = ("shape", "colour", "size", "place")


def probe_world(clip, world, n_fit=4000, n_test=1000, seed=0):
    """{attribute: {"seen": fraction, "held_out": fraction}} for single objects.

    Empty for a world that has no pictures of single objects.
    """
    if 1 not in world_of(world).counts:
        return {}
    fit = evaluation_specs(world, n_fit, seed + 1, held_out=False, count=1)
    tests = {
        "seen": evaluation_specs(world, n_test, seed + 2, held_out=False, count=1),
        "held_out": evaluation_specs(world, n_test, seed + 3, held_out=True, count=1),
    }
    return probe_accuracy(
        image_features(clip, fit.images),
        _labels(fit.specs),
        {
            k: (image_features(clip, t.images), _labels(t.specs))
            for k, t in tests.items()
        },
    )


def _labels(specs):
    return {a: np.array([getattr(s.things[0], a) for s in specs]) for a in ATTRIBUTES}
