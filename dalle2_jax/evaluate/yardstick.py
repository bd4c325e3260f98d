"""One set of drawn pictures, held against real ones of the same captions."""

from typing import Any, NamedTuple

import numpy as np

from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.aesthetics import predict
from dalle2_jax.evaluate.attributes import accuracy
from dalle2_jax.evaluate.clip_score import clip_score, text_features
from dalle2_jax.evaluate.features import Extractor, clip_extractor, extract
from dalle2_jax.evaluate.frechet import frechet_distance, moments
from dalle2_jax.evaluate.neighbours import precision_recall
from dalle2_jax.evaluate.protocol import Protocol, provenance

NEIGHBOURS = 3  # of precision and recall (Kynkäänniemi et al. 2019)


class Yardstick(NamedTuple):
    """The real side of every metric, computed once.

    wanted: Wanted; clip: Extractor of the model's CLIP; extractor: Extractor of
    distances; z_text, z_real [n, clip]; real [n, d]: features; aesthetic: Aesthetic or
    None.
    """

    wanted: Any
    clip: Extractor
    extractor: Extractor
    z_text: np.ndarray
    z_real: np.ndarray
    real: np.ndarray
    aesthetic: Any = None


class Seen(NamedTuple):
    """Drawn pictures uint8 [n, y, x, 3], their z_i [n, clip] and features [n, d]."""

    pictures: np.ndarray
    z_image: np.ndarray
    features: np.ndarray


def yardstick(model, wanted, extractor=None, aesthetic=None):
    """The Yardstick of a model and a Wanted; extractor: default the model's CLIP."""
    clip = clip_extractor(model.clip)
    chosen = extractor or clip
    z_text = text_features(model.clip, model.tokenizer, wanted.captions)
    z_real = extract(clip.function, wanted.images)["pool"]
    real = z_real
    if chosen is not clip:
        real = extract(chosen.function, wanted.images)["pool"]
    return Yardstick(wanted, clip, chosen, z_text, z_real, real, aesthetic)


def see(measure, pictures):
    """The Seen of drawn pictures."""
    z_image = extract(measure.clip.function, pictures)["pool"]
    features = z_image
    if measure.extractor is not measure.clip:
        features = extract(measure.extractor.function, pictures)["pool"]
    return Seen(pictures, z_image, features)


def _frechet(measure, seen):
    return frechet_distance(moments(seen.features), moments(measure.real))


def _score(measure, seen):
    return clip_score(seen.z_image, measure.z_text)


def _precision(measure, seen):
    return precision_recall(measure.real, seen.features, NEIGHBOURS)[0]


def _recall(measure, seen):
    return precision_recall(measure.real, seen.features, NEIGHBOURS)[1]


def _aesthetic(measure, seen):
    if measure.aesthetic is None:
        raise BadInput("no aesthetic probe; give --ratings or --probe.")
    return float(predict(measure.aesthetic, seen.z_image).mean())


def _all_right(measure, seen):
    asked = measure.wanted
    return accuracy(asked.specs, asked.world, seen.pictures)["accuracy"]["all"]


OWN_CLIP = ("clip_score", "aesthetic", "r_precision", "retrieval", "cosine")
DISTANCES = ("frechet", "precision", "recall")  # by the chosen features
DETAILS = {  # beyond features and resize
    "precision": {"k": NEIGHBOURS},
    "recall": {"k": NEIGHBOURS},
    "clip_score": {"scale": 1.0},
}
METRICS = {  # name -> (Yardstick, Seen) -> float
    "frechet": _frechet,
    "clip_score": _score,
    "precision": _precision,
    "recall": _recall,
    "aesthetic": _aesthetic,
    "all_right": _all_right,
}


def scores(measure, pictures, metrics):
    """{metric: float} of drawn pictures uint8 [n, y, x, 3], in the wanted's order."""
    seen = see(measure, pictures)
    return {name: METRICS[name](measure, seen) for name in metrics}


def facts(measure, metric, drawn=None):
    """The provenance of a number: n, features and resize, reference, and `drawn`.

    Args:
        measure: Yardstick.
        metric: a name in OWN_CLIP or DISTANCES; any other has no feature network.
        drawn: `protocol.model_facts` of what drew the samples.
    """
    images = measure.wanted.images
    spaces = dict.fromkeys(OWN_CLIP, measure.clip)
    spaces |= dict.fromkeys(DISTANCES, measure.extractor)
    chosen = Protocol(size=images.shape[1], n=len(images))
    reference = measure.wanted.facts
    found = provenance(len(images), chosen, spaces.get(metric), reference, drawn)
    return DETAILS.get(metric, {}) | found
