"""What the manipulations keep and change, counted on generated pictures.

Every manipulation is run on n real renders of one object each; the pictures that come
out are read back and compared with what they should show, attribute by attribute.
"""

from typing import NamedTuple

import numpy as np

from dalle2_jax.data.write_shapes import evaluation_specs
from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.attributes import READABLE, accuracy
from dalle2_jax.evaluate.clip_score import image_features
from dalle2_jax.evaluate.manipulation_cases import CASES, Bench, case_of
from dalle2_jax.manipulate.latent import EXACT
from dalle2_jax.manipulate.reading import picture_side
from dalle2_jax.probe.pca import principal_axes
from dalle2_jax.unclip import need, prior_of, to_uint8

RENDERS = 2048  # that the principal axes are fitted to
PARTS = (0, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # components that are kept
ATTRIBUTES = {"outpainting": ("shape", "colour", "both", "background")}  # else all


class Row(NamedTuple):
    """pictures uint8 [n, y, x, 3] of one manipulation and their JSON-able scores.

    scores: accuracy and standard_error {attribute: share}, n, numbers {name: (mean,
    standard error)}; "rms" and "apart" in levels of 255.
    """

    pictures: np.ndarray
    scores: dict


def judge_manipulations(
    model, n, world="simple", seed=0, how=EXACT, names=tuple(CASES), tell=None
):
    """Every manipulation on the same n pictures.

    Args:
        model: UnCLIP with clip, a prior, a decoder and a tokenizer.
        n: pictures, 2 or more; of any (shape, colour) pair, held out or not.
        world: "simple" or "pairs"; of either, pictures with one object.
        seed: of the pictures and of all noise.
        how: Sampling of the inversions.
        names: of CASES.
        tell: called with the number of pictures done, or None.

    Returns:
        {row: Row}, in the order of CASES.

    Raises:
        BadInput: a world that cannot be read back, too few pictures, an unknown name,
            or a component that is missing.
    """
    check(n, world, names)
    need(model, "clip", "decoder", prior_of(model))
    side = picture_side(model)
    asked = evaluation_specs(world, n, seed, held_out=None, size=side, count=1)
    bench = bench_of(model, world, seed, how, side)
    made = {}
    for number in range(n):
        case = case_of(number, seed, asked.specs, asked.images)
        for name in names:
            for row, one in CASES[name](bench, case).items():
                made.setdefault(row, []).append(one)
        if tell:
            tell(number + 1)
    return {row: scored(row, parts, world) for row, parts in made.items()}


def check(n, world, names):
    """Raises BadInput for what `judge_manipulations` cannot do."""
    if n < 2:
        raise BadInput(f"--n must be at least 2, not {n}.")
    if world not in READABLE:
        raise BadInput(f"{world} cannot be read back; take one of {READABLE}.")
    for name in names:
        if name not in CASES:
            raise BadInput(f"no manipulation {name!r}; there are {', '.join(CASES)}.")


def bench_of(model, world, seed, how, side):
    """The Bench of a model; its principal axes are those of fresh renders."""
    many = max(RENDERS, 2 * model.clip.cfg.clip)
    drawn = evaluation_specs(world, many, seed + 1, False, side, count=1)
    mean, axes = principal_axes(image_features(model.clip, drawn.images))
    counts = tuple(count for count in PARTS if count <= len(axes))
    return Bench(model, how, mean, axes, counts)


def scored(row, made, world):
    """The Row of a list of Made."""
    pictures = to_uint8(np.stack([np.asarray(one.picture) for one in made]))
    scores = accuracy([one.wanted for one in made], world, pictures)
    chosen = ATTRIBUTES.get(row, tuple(scores["accuracy"]))
    for part in ("accuracy", "standard_error"):
        scores[part] = {name: scores[part][name] for name in chosen}
    scores["numbers"] = {
        name: mean_of([one.numbers[name] for one in made]) for name in made[0].numbers
    }
    return Row(pictures, scores)


def mean_of(values):
    """(mean, its standard error)."""
    values = np.asarray(values, np.float64)
    error = values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(error)
