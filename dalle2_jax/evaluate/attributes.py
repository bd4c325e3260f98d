"""unCLIP §5: does a picture show what its caption says, and which route of z_i does.

On a generated world this has an exact answer: the pictures are read back and compared
with what was asked, attribute by attribute. The routes are the paper's §5.1 (is the
prior needed?): the full stack, the text embedding in place of z_i, the caption alone,
and, as the ceiling, the embedding of a real picture of the same spec.
"""

from typing import NamedTuple

import numpy as np

from dalle2_jax.data.read_shapes import read
from dalle2_jax.data.score_shapes import score
from dalle2_jax.evaluate.clip_score import clip_score, image_features, text_features
from dalle2_jax.evaluate.frechet import frechet_distance, moments
from dalle2_jax.unclip import generate

ROUTES = {  # name in reports -> route of unclip.draw
    "full_stack": "prior",
    "text_embedding": "text",
    "caption_only": "none",
    "true_embedding": "image",
}


class Judgement(NamedTuple):
    """pictures uint8 [n, y, x, 3] and what they scored, JSON-able."""

    pictures: np.ndarray
    scores: dict


READABLE = ("simple", "pairs")  # worlds whose pictures can be read back


def accuracy(specs, world, images):
    """Fractions right by attribute, their standard errors, and n.

    A world that cannot be read back (READABLE) has no attributes, only n.
    """
    right = score(specs, read(images, world)) if world in READABLE else {}
    mean = {name: float(values.mean()) for name, values in right.items()}
    n = len(specs)
    error = {name: float(np.sqrt(p * (1 - p) / n)) for name, p in mean.items()}
    return {"accuracy": mean, "standard_error": error, "n": n}


def judge_routes(model, wanted, world, seed=0, how=None, routes=tuple(ROUTES)):
    """Every route on the same captions, seeds and noise.

    Args:
        model: UnCLIP.
        wanted: Evaluation (specs, captions, real renders).
        world: name of the world.
        seed: of the samples.
        how: {stage: Sampling}; default: the model's own.

    Returns:
        {route: Judgement}; the Fréchet distance is in the run's own CLIP space.
    """
    z_real = image_features(model.clip, wanted.images)
    z_text = text_features(model.clip, model.tokenizer, wanted.captions)
    real = moments(z_real)
    result = {}
    for name in routes:
        drawn = generate(
            model, wanted.captions, seed, how=how, route=ROUTES[name], z_image=z_real
        )
        pictures = np.concatenate(list(drawn))
        z = image_features(model.clip, pictures)
        scores = accuracy(wanted.specs, world, pictures)
        scores["clip_score"] = clip_score(z, z_text)
        scores["frechet_clip"] = frechet_distance(moments(z), real)
        result[name] = Judgement(pictures, scores)
    return result
