"""The Inception Score (Salimans et al. 2016, section 4)."""

import numpy as np
from scipy.special import log_softmax

from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.frechet import checked


def inception_score(logits, splits=10, seed=2020):
    """exp of the mean KL(p(y|x) || p(y)), over splits: (mean, standard deviation).

    Order and splits are torch-fidelity's: shuffled by a seeded legacy generator, then
    cut in parts as equal as can be.

    Args:
        logits: [n, classes], those of the 2015 Inception without their bias.
        splits: number of parts, each with a p(y) of its own.
        seed: of the order.

    Returns:
        Between 1 and the number of classes; std of one split is 0.

    Raises:
        BadInput: fewer samples than splits, or logits that are not finite.
    """
    logits = checked(logits, "logits")
    n = len(logits)
    if not 1 <= splits <= n:
        raise BadInput(
            f"an Inception Score of {n} samples cannot have {splits} splits; choose "
            f"1 to {n}."
        )
    logp = log_softmax(logits[np.random.RandomState(seed).permutation(n)], axis=1)
    ends = [i * n // splits for i in range(splits + 1)]
    scores = [_score(logp[a:b]) for a, b in zip(ends, ends[1:])]
    return float(np.mean(scores)), float(np.std(scores))


def _score(logp):
    """Of one split: log p(y|x) [n, classes]."""
    p = np.exp(logp)
    divergence = (p * (logp - np.log(p.mean(0)))).sum(1)
    return np.exp(divergence.mean())
