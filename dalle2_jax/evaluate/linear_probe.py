"""What an embedding holds: linear classifiers on frozen features (CLIP §3.2).

Retrieval can look healthy while an attribute is absent from the embedding; a linear
probe tells. Those of a generated world are fitted on training pictures (no held-out
pair) and tested on fresh renders: of pairs that were seen, and that never were.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from dalle2_jax.data.shapes import canonical, world_of
from dalle2_jax.data.write_shapes import evaluation_specs
from dalle2_jax.evaluate.clip_score import image_features

ATTRIBUTES = ("shape", "colour", "size", "place")


def probe(features, labels, strength=1e-3):
    """A multinomial logistic regression, fitted by L-BFGS to convergence.

    Args:
        features: [n, d] float.
        labels: [n] ints from 0.
        strength: L2 penalty on the weights of the standardised features.

    Returns:
        predict: features [m, d] -> labels [m].
    """
    x = np.asarray(features, np.float64)
    mean, spread = x.mean(0), x.std(0) + 1e-8
    design = np.c_[(x - mean) / spread, np.ones(len(x))]
    classes = int(labels.max()) + 1
    target = np.eye(classes)[labels]

    def loss(flat):
        w = flat.reshape(-1, classes)
        logp = log_softmax(design @ w, axis=1)
        value = -(target * logp).sum() / len(x) + strength * (w[:-1] ** 2).sum() / 2
        slope = design.T @ (np.exp(logp) - target) / len(x)
        slope[:-1] += strength * w[:-1]
        return value, slope.ravel()

    start = np.zeros(design.shape[1] * classes)
    best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    w = best.x.reshape(-1, classes)
    return lambda f: (np.c_[(f - mean) / spread, np.ones(len(f))] @ w).argmax(1)


def probe_accuracy(features, labels, tests):
    """Accuracy of probes, attribute by attribute.

    Args:
        features: [n, d] for fitting.
        labels: {attribute: [n] hashable values}.
        tests: {name: (features [m, d], labels)}.

    Returns:
        {attribute: {name: fraction}}.
    """
    result = {}
    for attribute, values in labels.items():
        names = sorted(set(values))
        number = {name: i for i, name in enumerate(names)}
        predict = probe(features, np.array([number[v] for v in values]))
        result[attribute] = {
            test: float(
                np.mean([names[p] == v for p, v in zip(predict(f), want[attribute])])
            )
            for test, (f, want) in tests.items()
        }
    return result


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
