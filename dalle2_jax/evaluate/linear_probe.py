"""What an embedding holds: linear classifiers on frozen features (CLIP §3.2).

Retrieval can look healthy while an attribute is absent from the embedding; a linear
probe tells.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax


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
