"""Which numbers there are, what each needs, and the numbers of two sides."""

from collections.abc import Callable
from typing import NamedTuple

from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.clip_score import clip_score
from dalle2_jax.evaluate.frechet import frechet_distance
from dalle2_jax.evaluate.inception_score import inception_score
from dalle2_jax.evaluate.kernel import cmmd, kid
from dalle2_jax.evaluate.neighbours import density_coverage, precision_recall
from dalle2_jax.evaluate.statistics import moments_of

KID_SUBSET = 1000
SPLITS = 10


class Score(NamedTuple):
    """One number.

    key: of the features that it takes; network: whose, a field of `judge.Setup`:
    "main", "clip" or "clean"; reference: what it takes of the reference set, "moments",
    "features" or ""; function: (samples Side, reference Side or None, z_text or None)
    -> (value, deviation or None), of balls around neighbours with their number after
    that; neighbours: that number where none is asked for, 0: it takes none.
    """

    key: str
    network: str
    reference: str
    function: Callable
    neighbours: int = 0


def _frechet(key):
    def distance(samples, reference, z_text):
        ours, theirs = (moments_of(side, key) for side in (samples, reference))
        return frechet_distance(ours, theirs), None

    return distance


def _kid(samples, reference, z_text):
    x, y = samples.features["pool"], reference.features["pool"]
    size = min(KID_SUBSET, len(x), len(y))
    value, deviation = kid(x, y, size=size)
    return value, None if size == len(x) == len(y) else deviation


def _inception(samples, reference, z_text):
    logits = samples.features["logits"]
    return inception_score(logits, min(SPLITS, len(logits)))


def _neighbours(function, place):
    def score(samples, reference, z_text, k):
        sides = reference.features["pool"], samples.features["pool"]
        return function(*sides, k)[place], None

    return score


def _cmmd(samples, reference, z_text):
    return cmmd(samples.features["pool"], reference.features["pool"]), None


def _clip_score(samples, reference, z_text):
    return clip_score(samples.features["pool"], z_text), None


SCORES = {
    "fid": Score("pool", "main", "moments", _frechet("pool")),
    "fid_clean": Score("pool", "clean", "moments", _frechet("pool")),
    "sfid": Score("spatial", "main", "moments", _frechet("spatial")),
    "kid": Score("pool", "main", "features", _kid),
    "is": Score("logits", "main", "", _inception),
    "precision": Score("pool", "main", "features", _neighbours(precision_recall, 0), 3),
    "recall": Score("pool", "main", "features", _neighbours(precision_recall, 1), 3),
    "density": Score("pool", "main", "features", _neighbours(density_coverage, 0), 5),
    "coverage": Score("pool", "main", "features", _neighbours(density_coverage, 1), 5),
    "clip_score": Score("pool", "clip", "", _clip_score),
    "cmmd": Score("pool", "clip", "features", _cmmd),
}


def named_scores(text):
    """["fid", ...] of "fid,...".

    Raises:
        BadInput: one of them is not known.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in SCORES]
    if unknown or not names:
        raise BadInput(
            f"--metrics {text}: {unknown[0] if unknown else 'nothing'} is no metric; "
            f"there are {', '.join(SCORES)}."
        )
    return list(dict.fromkeys(names))


def taken(name, samples, reference, z_text=None, k=None):
    """One number of two sides: (value, deviation or None).

    Args:
        name: of SCORES.
        samples: Side.
        reference: Side, or None where the number needs none.
        z_text: of the samples' captions [n, d], for the CLIP score.
        k: neighbours, where the number takes them; None: as many as usual.

    Raises:
        BadInput: a side lacks what it needs; says what would give it.
    """
    score = SCORES[name]
    need_features(name, samples.features)
    if score.reference:
        need_reference(name, reference)
    if score.neighbours:
        return score.function(samples, reference, z_text, k or score.neighbours)
    return score.function(samples, reference, z_text)


def too_few(name: str, counts: list[int], k: int | None = None) -> str:
    """Why a number cannot be had of so many pictures; "" where it can.

    Args:
        name: of SCORES.
        counts: pictures of the samples and, where there is one, of the reference.
        k: as in `taken`.
    """
    neighbours = SCORES[name].neighbours and (k or SCORES[name].neighbours)
    if neighbours < min(counts):
        return ""
    return (
        f"{name} looks at {neighbours} neighbours of each of {min(counts)} pictures; "
        "give more pictures, or a smaller --neighbours"
    )


def need_features(name, features):
    """Raises BadInput where {key: array} lacks what the number of that name takes."""
    key = SCORES[name].key
    if key not in features:
        raise BadInput(
            f"{name} needs {key} of Inception's features; give --inception FILE, or "
            "leave it out of --metrics."
        )


def need_reference(name, reference):
    """Raises BadInput where a reference Side cannot serve the number of that name."""
    score = SCORES[name]
    if score.key in reference.features:
        return
    if score.reference == "features" or score.key not in reference.moments:
        raise BadInput(
            f"{name} needs {score.key} features of the reference pictures, which "
            f"{reference.facts['name']} does not hold; give pictures, or leave it out "
            "of --metrics."
        )


def details(name, samples, reference=None, k=None):
    """What else stands beside a number: the constants of its definition."""
    if SCORES[name].neighbours:
        return {"neighbours": k or SCORES[name].neighbours}
    counts = [side.count for side in (samples, reference) if side is not None]
    size = min(KID_SUBSET, *counts) if counts[1:] else 0
    return {
        "kid": {"subsets": 100, "subset_size": size, "subset_seed": 2020},
        "is": {"splits": min(SPLITS, samples.count), "split_seed": 2020},
        "cmmd": {"sigma": 10.0, "scale": 1000.0},
        "clip_score": {"scale": 1.0},
    }.get(name, {})
