"""unCLIP §5.1: is the prior needed? The same captions by every route to z_i.

The full stack, the text embedding in place of z_i, the caption alone, and, as the
ceiling, the embedding of a real picture of the same caption.
"""

from typing import NamedTuple

import numpy as np

from dalle2_jax.evaluate.attributes import accuracy
from dalle2_jax.evaluate.clip_score import clip_score
from dalle2_jax.evaluate.frechet import frechet_distance, moments
from dalle2_jax.evaluate.neighbours import precision_recall
from dalle2_jax.evaluate.prior_scores import prior_scores
from dalle2_jax.evaluate.retrieval import r_precision, retrieval
from dalle2_jax.evaluate.routes import (
    FROM_PRIOR,
    NAMED,
    embedding,
    pictures,
    routes_of,
)
from dalle2_jax.evaluate.yardstick import NEIGHBOURS, see

GROUPS = 10  # of captions, that the jackknife leaves out in turn


class Judgement(NamedTuple):
    """pictures uint8 [n, y, x, 3] of one route and what they scored, JSON-able.

    z_given: z_i [n, clip] that a prior gave the decoder, else None.
    """

    pictures: np.ndarray
    scores: dict
    z_given: np.ndarray | None = None


def prior_importance(model, measure, seed=0, how=None, routes=None):
    """Every route on the same captions, seeds and noise.

    Args:
        model: UnCLIP.
        measure: Yardstick.
        seed: of the samples.
        how: {stage: Sampling}; default: the model's own.
        routes: names of routes.NAMED; default: all that the model has.

    Returns:
        {route: Judgement}. The scores: accuracy by attribute (of a world that can be
        read), n, clip_score, frechet (also as frechet_clip where its features are the
        model's CLIP), frechet_error, recall, r_precision among 99 other captions.
    """
    asked, found = measure.wanted, {}
    for route in routes or routes_of(model):
        z = embedding(model, route, asked.captions, measure.z_real, seed, how)
        drawn = pictures(model, route, asked.captions, z, seed, how)
        given = z if route in FROM_PRIOR else None
        found[route] = Judgement(drawn, _scores(measure, drawn), given)
    return found


def _scores(measure, drawn):
    asked, seen = measure.wanted, see(measure, drawn)
    found = accuracy(asked.specs, asked.world, drawn)
    found["clip_score"] = clip_score(seen.z_image, measure.z_text)
    found["frechet"] = frechet_distance(moments(seen.features), moments(measure.real))
    if len(drawn) > 2:
        found["frechet_error"] = frechet_error(seen.features, measure.real)
    if measure.extractor is measure.clip:
        found["frechet_clip"] = found["frechet"]
    if len(drawn) > NEIGHBOURS:
        nearest = precision_recall(measure.real, seen.features, NEIGHBOURS)
        found["recall"] = nearest[1]
    found["r_precision"] = r_precision(seen.z_image, measure.z_text, asked.captions)[0]
    return found


def frechet_error(drawn, real):
    """Standard error of a Fréchet distance: the jackknife over GROUPS of captions.

    drawn, real: features [n, d] of matching rows, n above 2; both leave a group out.
    """
    groups = np.arange(len(drawn)) % min(GROUPS, len(drawn))
    left = [
        frechet_distance(moments(drawn[groups != g]), moments(real[groups != g]))
        for g in range(groups.max() + 1)
    ]
    return float(np.sqrt((len(left) - 1) * np.var(left)))


def cosines(measure, judged):
    """{route: prior_scores} of the routes whose z_i a prior made."""
    real = measure.z_real, measure.z_text, measure.wanted.captions
    return {
        route: prior_scores(of_one.z_given, *real)
        for route, of_one in judged.items()
        if of_one.z_given is not None
    }


def clip_retrieval(measure):
    """`retrieval` of the real pictures and their captions, and their R-precision.

    Also how many distractors that has, and how many distinct captions there are.
    """
    real = measure.z_real, measure.z_text, measure.wanted.captions
    share, distractors = r_precision(*real)
    found = retrieval(*real)
    found |= {"r_precision": share, "distractors": distractors}
    return found | {"captions": len(set(measure.wanted.captions))}


PAPER = ("full_stack", "text_embedding", "caption_only")  # the best first


def finding(scores, near):
    """Whether the paper's order of the routes holds: sentences computed from scores.

    Args:
        scores: {route: scores of its Judgement}, with all of PAPER.
        near: `prior_scores` of the full stack.

    Returns:
        One sentence on the Fréchet distance, of a world that can be read back one on
        attribute accuracy, and one on the gap that a prior has to close. The first two
        say where the order is another one, or is not certain (two standard errors).
    """
    distances = {
        route: (scores[route]["frechet"], scores[route].get("frechet_error", np.inf))
        for route in PAPER
    }
    said = [_ranking(distances, "Fréchet distance", "<", 1)]
    if all("all" in scores[route]["accuracy"] for route in PAPER):
        kinds = ("accuracy", "standard_error")
        shares = {r: [scores[r][kind]["all"] for kind in kinds] for r in PAPER}
        said.append(_ranking(shares, "All attributes right", ">", -1))
    ours, theirs = near["to_image"][0], near["data_to_caption"][0]
    said.append(
        f"What the prior has to gain: its z_i has a cosine of {ours:.3f} to the real "
        f"picture's, the text embedding one of {theirs:.3f}."
    )
    return " ".join(said)


def _ranking(values, called, mark, sign):
    """One sentence; values: {route: (value, standard error)}."""
    order = sorted(values, key=lambda route: sign * values[route][0])
    told = f"{NAMED[order[0]]} {values[order[0]][0]:.3g}"
    tied = [values[a][0] == values[b][0] for a, b in zip(order, order[1:])]
    for route, same in zip(order[1:], tied):
        told += f" {'=' if same else mark} {NAMED[route]} {values[route][0]:.3g}"
    names = f" {mark} ".join(NAMED[r] for r in PAPER)
    right = order == list(PAPER) and not any(tied)
    verdict = "as in the paper" if right else f"the paper has {names}"
    close = [
        f"{NAMED[a]} and {NAMED[b]}"
        for a, b in zip(order, order[1:])
        if abs(values[a][0] - values[b][0]) <= 2 * np.hypot(values[a][1], values[b][1])
    ]
    doubt = f", but less than two standard errors part {', '.join(close)}"
    return f"{called}: {told}; {verdict}{doubt if close else ''}."
