"""What each manipulation of sections 3 and 4 does to one generated picture.

A manipulation is a function (bench, case) -> {row: Made}: what was made, and what it
should show. `evaluate/manipulations.py` reads the pictures and counts.
"""

from typing import Any, NamedTuple

import numpy as np

from dalle2_jax.cascade import run_upsamplers
from dalle2_jax.data.captions import caption
from dalle2_jax.data.render_shapes import layout
from dalle2_jax.data.shapes import COLOURS, SHAPES
from dalle2_jax.manipulate.inpaint import (
    edits,
    image_to_image,
    inpaint,
    outpaint_canvas,
)
from dalle2_jax.manipulate.interpolate import interpolate, mix
from dalle2_jax.manipulate.latent import to_size
from dalle2_jax.manipulate.text_diff import text_diff
from dalle2_jax.manipulate.variations import reconstruct, variations
from dalle2_jax.probe.pca import pca_reconstructions
from dalle2_jax.probe.typographic import attack
from dalle2_jax.unclip import from_uint8, sample_keys

ETA = 1.0  # of variations
THETA, THETAS = 0.7, (0.35, 0.525, 0.7)  # of text diffs: the last, and those read
STRENGTHS = (0.25, 0.5, 0.75, 1.0)  # of image to image
MARGIN = 0.25  # of outpainting, in picture sides
ROOM = 1.25  # side of the box that is inpainted, in widths of the object


class Bench(NamedTuple):
    """What all cases share.

    model: UnCLIP; how: Sampling of inversions; mean, axes: of `principal_axes`;
    components: numbers of them that are kept.
    """

    model: Any
    how: Any
    mean: np.ndarray
    axes: np.ndarray
    components: tuple


class Case(NamedTuple):
    """One picture of one object, and what it is to become.

    image, other_image: uint8 [1, y, x, 3], renders of spec and other.
    recoloured: spec with another colour; replaced: with another shape and colour.
    """

    seed: int
    spec: Any
    image: np.ndarray
    other: Any
    other_image: np.ndarray
    recoloured: Any
    replaced: Any

    def caption(self, spec):
        """A caption of this spec; in the same phrase for all specs of the case."""
        return caption(spec, np.random.default_rng(self.seed))


class Made(NamedTuple):
    """A picture float32 [y, x, 3] in [-1, 1], what it should show, numbers of it."""

    wanted: Any
    picture: np.ndarray
    numbers: dict


def case_of(number, seed, specs, images):
    """The Case of one of n pictures: uint8 [n, y, x, 3]; the next one is its other."""
    rng = np.random.default_rng([seed, number])
    spec, after = specs[number], (number + 1) % len(specs)
    thing = spec.things[0]
    colour = str(rng.choice([name for name in COLOURS if name != thing.colour]))
    shape = str(rng.choice([name for name in SHAPES if name != thing.shape]))
    own = int(np.random.default_rng([seed, number, 1]).integers(2**31))
    return Case(
        own,
        spec,
        images[number : number + 1],
        specs[after],
        images[after : after + 1],
        spec._replace(things=(thing._replace(colour=colour),)),
        spec._replace(things=(thing._replace(colour=colour, shape=shape),)),
    )


def apart(one, two):
    """Root mean square difference of pictures in [-1, 1], in levels of 255."""
    return float(np.sqrt(np.mean((np.asarray(one) - np.asarray(two)) ** 2)) * 127.5)


def given(bench, case):
    """The picture itself: what the reader makes of it."""
    return {"the picture itself": Made(case.spec, from_uint8(case.image[0]), {})}


def upsampled(bench, case):
    """The picture at the decoder's size through the upsamplers: their share."""
    small = to_size(from_uint8(case.image), bench.model.decoder.cfg.size)
    made = run_upsamplers(bench.model, small, sample_keys(case.seed, 0, 1), {})
    return {"upsampling": near(case.spec, made[0], case.image[0])}


def reconstructed(bench, case):
    """Section 3: (z_i, x_T) and back."""
    made = reconstruct(bench.model, case.image, bench.how, case.seed)
    return {"reconstruction": near(case.spec, made[0], case.image[0])}


def varied(bench, case):
    """Section 3.1: two variations; how far they are apart."""
    many = (case.image, 2, ETA, bench.how, case.seed)
    one, two = np.asarray(variations(bench.model, *many))
    return {"variation": Made(case.spec, one, {"apart": apart(one, two)})}


def interpolated(bench, case):
    """Section 3.2: the ends of a row of three."""
    both = np.concatenate([case.image, case.other_image])
    row = interpolate(bench.model, both, 3, how=bench.how, seed=case.seed)
    return {
        "interpolation, first": near(case.spec, row[0], both[0]),
        "interpolation, last": near(case.other, row[-1], both[1]),
    }


def mixed(bench, case):
    """Section 3.2: all the weight on the first picture, the second, a caption."""
    both = np.concatenate([case.image, case.other_image])
    words, wanted = [case.caption(case.replaced)], (case.spec, case.other)
    rows = {}
    for number, spec in enumerate((*wanted, case.replaced)):
        weights = np.eye(3)[number]
        made = mix(bench.model, both, words, weights, 1, bench.how, case.seed)
        names = ("the first picture", "the second picture", "a caption")
        rows[f"mixing, all of {names[number]}"] = Made(spec, made[0], {})
    return rows


def turned(bench, case):
    """Section 3.3: another colour, by "a red circle" and by whole captions."""
    pairs = {
        "text diff": [named(case.spec), named(case.recoloured)],
        "text diff, whole captions": [
            case.caption(case.spec),
            case.caption(case.recoloured),
        ],
    }
    places, rows = np.round(np.divide(THETAS, THETA) * 4).astype(int), {}
    for name, (old, new) in pairs.items():
        way = (case.image, new, old, THETA, 5, bench.how, case.seed)
        made = np.asarray(text_diff(bench.model, *way))
        for theta, place in zip(THETAS, places):
            rows[f"{name}, theta {theta:g}"] = near(
                case.recoloured, made[place], case.image[0]
            )
    return rows


def inpainted(bench, case):
    """Another object in the place of this one; then its first shape again, there."""
    known = outside(case.spec, case.image.shape[1])
    wanted = (case.replaced, case.recoloured)
    steps = [(known, case.caption(spec)) for spec in wanted]
    made = list(edits(bench.model, case.image, steps, seed=case.seed))
    kept = np.abs(np.asarray(made[0]) - from_uint8(case.image)) * known * 127.5
    return {
        "inpainting": Made(
            case.replaced, made[0][0], {"known_error": float(kept.max())}
        ),
        "two edits in a row": Made(case.recoloured, made[1][0], {}),
    }


def outpainted(bench, case):
    """The picture in the middle of a larger one."""
    canvas, known = outpaint_canvas(case.image, MARGIN)
    made = inpaint(bench.model, canvas, known, seed=case.seed)
    return {"outpainting": Made(case.spec, made[0], {})}


def redrawn(bench, case):
    """Image to image: another colour, by a whole caption."""
    words, rows = [case.caption(case.recoloured)], {}
    for strength in STRENGTHS:
        made = image_to_image(bench.model, case.image, strength, words, case.seed)
        row = near(case.recoloured, made[0], case.image[0])
        rows[f"image to image, strength {strength:g}"] = row
    return rows


def reduced(bench, case):
    """Section 4: from growing numbers of principal components of z_i."""
    ways = (bench.mean, bench.axes, bench.components, bench.how, case.seed)
    made = pca_reconstructions(bench.model, case.image, *ways)
    return {
        f"{count} of {len(bench.axes)} components": Made(case.spec, picture, {})
        for count, picture in zip(bench.components, made)
    }


def attacked(bench, case):
    """Section 4: the name of another shape written across; CLIP's choice of the two."""
    own, word = (spec.things[0].shape for spec in (case.spec, case.replaced))
    labels = [f"a {own}", f"a {word}"]
    sheet, chances = attack(bench.model, case.image, word, labels, 1, case.seed)
    before, after = chances[labels[1]]
    numbers = {"fooled_before": float(before > 0.5), "fooled": float(after > 0.5)}
    return {"typographic attack": Made(case.spec, from_uint8(sheet[1]), numbers)}


def near(wanted, picture, image):
    """Made, with its distance from a picture uint8 [y, x, 3]."""
    return Made(wanted, picture, {"rms": apart(picture, from_uint8(image))})


def named(spec):
    """ "a red circle": colour and shape alone."""
    thing = spec.things[0]
    article = "an" if thing.colour[0] in "aeiou" else "a"
    return f"{article} {thing.colour} {thing.shape}"


def outside(spec, side):
    """What is known when the object of a spec is cut out: bool [1, side, side, 1]."""
    (x, y, radius), known = layout(spec)[0], np.ones((1, side, side, 1), bool)
    low_y, high_y, low_x, high_x = (
        int(np.clip(round(side * (centre + sign * ROOM * radius)), 0, side))
        for centre in (y, x)
        for sign in (-1, 1)
    )
    known[:, low_y:high_y, low_x:high_x] = False
    return known


CASES = {
    "given": given,
    "upsampling": upsampled,
    "reconstruction": reconstructed,
    "variations": varied,
    "interpolation": interpolated,
    "mixing": mixed,
    "text-diff": turned,
    "inpainting": inpainted,
    "outpainting": outpainted,
    "image-to-image": redrawn,
    "pca": reduced,
    "typographic": attacked,
}
