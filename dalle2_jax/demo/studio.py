"""What the page draws: the public functions of a model, within limits, into PNG files.

No widget here: every function takes plain values and picture files, and gives Made.
"""

import io
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dalle2_jax.data.images import decode
from dalle2_jax.data.provenance import save_picture
from dalle2_jax.diffusion.schedule import rows
from dalle2_jax.errors import BadInput
from dalle2_jax.manipulate import inpaint as painting
from dalle2_jax.manipulate.interpolate import interpolate
from dalle2_jax.manipulate.latent import EXACT, changed
from dalle2_jax.manipulate.reading import picture_side, read_picture
from dalle2_jax.manipulate.text_diff import text_diff
from dalle2_jax.manipulate.variations import variations
from dalle2_jax.unclip import (
    generate,
    need,
    sample_keys,
    sampling_of,
    to_uint8,
    upsample,
)

MOST_PICTURES = 32  # that one click may ask for
MOST_STEPS = 1000  # of one stage
MOST_WALKS = 10  # of a level, where parts are drawn anew
PART = 8  # pictures that are drawn at a time and then shown
SEEDS = 2**53  # that a page can tell apart: its numbers are doubles
SLUG = 60  # characters of a caption in a file's name


class Studio(NamedTuple):
    """A model and where its pictures go.

    model: UnCLIP; name: of its directory; out: folder of the PNGs; ways: the function
    (model, steps, guidance) -> {stage: Sampling}, which reads "64/250/27" and "1/1.5".
    """

    model: Any
    name: str
    out: Path
    ways: Any


class Settings(NamedTuple):
    """What a tab sets: seed; the decoder's steps ("": own) and guidance (None: own)."""

    seed: int = 0
    steps: str = ""
    guidance: float | None = None


class Made(NamedTuple):
    """A PNG file with its provenance inside, and the words under it."""

    path: str
    label: str


def draw_captions(studio, text, count, seed, steps="", guidance="", tell=None):
    """Pictures for the captions in a text, one a line.

    Args:
        text: the captions; blank lines are left out.
        count: pictures a caption.
        steps, guidance: per stage, as in `dalle2 sample`; "": the model's own.
        tell: called as tell(share, stage) while stages draw; share 0 to 1.

    Yields:
        All Made so far, PART pictures at a time.

    Raises:
        BadInput: no caption, too many pictures, steps that cannot be.
    """
    captions = [line.strip() for line in (text or "").splitlines() if line.strip()]
    if not captions:
        raise BadInput("there is no caption; write one, or several, one a line.")
    wanted = [caption for caption in captions for _ in range(_counted(count))]
    _counted(len(wanted))
    steps, guidance = ((words or "").strip() for words in (steps, guidance))
    how = studio.ways(studio.model, steps, guidance)
    for stage, way in how.items():
        check_steps(getattr(studio.model, stage), way.steps)
    facts = {"verb": "sample", "seed": _seed(seed)}
    facts |= {"steps": steps, "guidance": guidance}
    made, folder = [], _folder(studio)
    told = _shares(tell, how, len(wanted))
    for part in generate(studio.model, wanted, _seed(seed), PART, how, tell=told):
        labels = wanted[len(made) : len(made) + len(part)]
        made = made + _saved(studio, folder, part, labels, facts, len(made))
        yield made


def _shares(tell, stages, count):
    """tell(share, stage) as what `generate` calls, or None: (stage, samples made)."""
    heard = []

    def told(stage, samples):
        heard.append(samples if stage in stages else 0)
        tell(min(sum(heard) / (count * len(stages)), 1.0), stage)

    return told if tell else None


def vary(studio, picture, count, eta, settings):
    """`variations` of a picture file: list of Made. eta 0 to 1."""
    if not 0 <= eta <= 1:
        raise BadInput(f"eta is {eta:g}; take 0 to 1.")
    image, how = _opened(studio, picture), _inverting(studio, settings)
    drawn = variations(
        studio.model, image, _counted(count), eta, how, _seed(settings.seed)
    )
    labels = [f"variation {i + 1}" for i in range(count)]
    facts = {"verb": "variations", "eta": eta}
    return _finished(studio, drawn, labels, facts, settings)


def walk_between(studio, one, other, count, noise, settings):
    """`interpolate` between two picture files: list of Made, the ends included."""
    images = np.concatenate([_opened(studio, one), _opened(studio, other)])
    how, seed = _inverting(studio, settings), _seed(settings.seed)
    drawn = interpolate(studio.model, images, _counted(count), noise, how, seed)
    labels = [f"{share:.0%} of the way" for share in np.linspace(0, 1, count)]
    facts = {"verb": "interpolate", "noise": noise}
    return _finished(studio, drawn, labels, facts, settings)


def turn(studio, picture, old, new, theta, count, settings):
    """`text_diff` of a picture file, theta from 0 on: list of Made."""
    if not (new or "").strip():
        raise BadInput("there is no caption to turn to; say what it is to become.")
    image, how = _opened(studio, picture), _inverting(studio, settings)
    given = (theta, _counted(count), how, _seed(settings.seed))
    drawn = text_diff(studio.model, image, new.strip(), (old or "").strip(), *given)
    labels = [f"theta {x:.2f}" for x in np.linspace(0, theta, count)]
    facts = {"verb": "text-diff", "old": old, "new": new, "theta": theta}
    return _finished(studio, drawn, labels, facts, settings)


def repaint(studio, picture, strokes, caption, resample, settings):
    """`inpaint` of what strokes cover: list of one Made.

    picture: PIL image RGBA, its transparent margins are those of a canvas and cut off;
    strokes: PIL images RGBA of its size, opaque where it is drawn anew; caption: of the
    whole picture, or "".
    """
    need(studio.model, "clip", "decoder")
    side = picture_side(studio.model)
    frame = given(given(picture).getchannel("A").getbbox())
    pixels = decode(_png(picture.crop(frame)), side, "the picture")
    alphas = [np.asarray(stroke.getchannel("A")) for stroke in strokes]
    mask = np.maximum.reduce([np.zeros(picture.size[::-1], np.uint8), *alphas])
    mask = decode(_png(Image.fromarray(mask).crop(frame)), side, "the mask")
    if not 1 <= resample <= MOST_WALKS:
        raise BadInput(f"{resample} walks of each level; take 1 to {MOST_WALKS}.")
    words = [caption.strip()] if (caption or "").strip() else None
    drawn = painting.inpaint(
        studio.model,
        pixels,
        painting.mask_of(mask),
        words,
        int(resample),
        _seed(settings.seed),
        _drawing(studio, settings),
    )
    facts = {"verb": "inpaint", "caption": caption, "resample": int(resample)}
    return _finished(studio, drawn, [caption or "inpainted"], facts, settings)


def redraw(studio, picture, caption, strength, count, settings):
    """`image_to_image` of a picture file: list of Made."""
    image = np.repeat(_opened(studio, picture), _counted(count), axis=0)
    words = [caption.strip()] * count if (caption or "").strip() else None
    ways, seed = _drawing(studio, settings), _seed(settings.seed)
    given = (strength, words, seed, ways)
    drawn = painting.image_to_image(studio.model, image, *given)
    facts = {"verb": "image-to-image", "caption": caption, "strength": strength}
    labels = [caption or "redrawn"] * len(drawn)
    return _finished(studio, drawn, labels, facts, settings)


def enlarge(studio, picture, seed):
    """A picture file through the model's upsamplers: list of one Made."""
    need(studio.model, "upsampler")
    cfg = studio.model.upsampler.cfg
    small = _read(picture, cfg.size // cfg.factor)[None]
    drawn = upsample(studio.model, small, sample_keys(_seed(seed), 0, 1), {})
    label = f"{small.shape[1]} to {drawn.shape[1]} pixels"
    return _finished(studio, drawn, [label], {"verb": "upsample"}, Settings(seed))


def given(picture):
    """The path of a picture that was given. Raises BadInput where none was."""
    if not picture:
        raise BadInput("there is no picture; drop one into the box first.")
    return picture


def check_steps(component, steps):
    """Raises BadInput for steps that a stage has no schedule for, or too many."""
    noise = component.noise
    if noise and len(rows(noise.schedule, noise.steps, steps).t) > MOST_STEPS:
        raise BadInput(f"{steps} are more than {MOST_STEPS} steps; take fewer.")


def _opened(studio, picture):
    """The picture as the model reads it: uint8 [1, side, side, 3]."""
    need(studio.model, "clip", "decoder")
    return _read(picture, picture_side(studio.model))[None]


def _read(picture, side):
    """The picture file under the name that it came with."""
    return read_picture(given(picture), side, Path(picture).name)


def _png(image):
    """A PIL image as the bytes of a file, which `decode` takes."""
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def _inverting(studio, settings):
    return _with(studio, EXACT, settings)


def _drawing(studio, settings):
    own = sampling_of(studio.model.decoder)
    return {"decoder": _with(studio, own, settings)}


def _with(studio, how, settings):
    how = changed(how, settings.steps.strip() or None, settings.guidance)
    check_steps(studio.model.decoder, how.steps)
    return how


def _counted(count):
    if not 1 <= count <= MOST_PICTURES:
        raise BadInput(
            f"{count} pictures are asked for; take 1 to {MOST_PICTURES} a click."
        )
    return int(count)


def _seed(seed):
    if seed is None or seed != int(seed) or not 0 <= seed < SEEDS:
        raise BadInput(f"the seed is {seed}; take a whole number, 0 to {SEEDS - 1}.")
    return int(seed)


def _finished(studio, drawn, labels, facts, settings):
    """Pictures float [n, y, x, 3] in [-1, 1] as files: list of Made."""
    facts = facts | settings._asdict()
    return _saved(studio, _folder(studio), to_uint8(drawn), labels, facts)


def _saved(studio, folder, pictures, labels, facts, first=0):
    """Writes uint8 [n, y, x, 3] as PNGs, numbered from `first`: list of Made."""
    told = {k: v for k, v in facts.items() if v not in ("", None)}
    made = []
    for number, (picture, label) in enumerate(zip(pictures, labels), first):
        path = folder / f"{_slug(label)}-seed{told['seed']}-{number:02d}.png"
        about = {"label": label, "sample": number, "model": studio.name}
        save_picture(path, picture, told | about)
        made.append(Made(str(path), label))
    return made


def _folder(studio):
    """A new folder: names of files may come again, the folders' never do."""
    return Path(tempfile.mkdtemp(dir=studio.out))


def _slug(label):
    words = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
    return words[:SLUG].strip("-") or "picture"
