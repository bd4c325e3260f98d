"""Linear probes of shape, colour, size and place on a frozen CLIP (see linear_probe).

Fitted on training pictures (no held-out pair), tested on fresh renders: of pairs that
were seen, and of pairs that never were.
"""

import numpy as np

from dalle2_jax.data.shapes import canonical, world_of
from dalle2_jax.data.write_shapes import evaluation_specs
from dalle2_jax.evaluate.clip_score import image_features
from dalle2_jax.evaluate.linear_probe import probe_accuracy

ATTRIBUTES = ("shape", "colour", "size", "place")


def probe_world(clip, world, n_fit=4000, n_test=1000, seed=0):
    """{attribute: {"seen": fraction, "held_out": fraction}}, by linear probe.

    Single objects have ATTRIBUTES. A world of pairs is probed on pairs: their relation,
    read left to right and top to bottom, and in that order the shape and colour of
    each, which is what binding needs. Empty for a world that has neither.
    """
    world = world_of(world)
    if not world.related and 1 not in world.counts:
        return {}
    count = 2 if world.related else 1
    draws = {"fit": (n_fit, False), "seen": (n_test, False), "held_out": (n_test, True)}
    found = {}
    for number, (name, (n, held_out)) in enumerate(draws.items()):
        drawn = evaluation_specs(world, n, seed + 1 + number, held_out, count=count)
        found[name] = image_features(clip, drawn.images), _labels(drawn.specs)
    return probe_accuracy(*found.pop("fit"), found)


def _labels(specs):
    """{attribute: [n] values} of specs that all have one object, or all two."""
    specs = [canonical(spec) for spec in specs]
    if not specs[0].relation:
        return {
            a: np.array([getattr(s.things[0], a) for s in specs]) for a in ATTRIBUTES
        }
    labels = {"relation": np.array([s.relation for s in specs])}
    for number, order in enumerate(("first", "second")):
        for a in ATTRIBUTES[:2]:
            values = [getattr(s.things[number], a) for s in specs]
            labels[f"{order} {a}"] = np.array(values)
    return labels
