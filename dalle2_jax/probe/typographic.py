"""unCLIP §4: typographic attacks: what CLIP reads, and what the decoder makes of it."""

import numpy as np
from PIL import Image, ImageDraw

from dalle2_jax.clip.zero_shot import classify
from dalle2_jax.data.lettering import font_of
from dalle2_jax.data.picture_arrays import as_bytes
from dalle2_jax.manipulate.variations import variations
from dalle2_jax.unclip import to_uint8

WIDTH = 0.9  # of the picture, that the words take at most


def attacked(picture: np.ndarray, words: str) -> np.ndarray:
    """uint8 [y, x, 3] with words on a white label across its middle.

    Raises:
        BadInput: no font here has the words' letters.
    """
    image = Image.fromarray(picture)
    size = max(image.height // 4, 8)
    font = font_of(words, size)
    while size > 4 and font.getlength(words) > WIDTH * image.width:
        size -= 1
        font = font_of(words, size)
    middle = (image.width / 2, image.height / 2)
    pen = ImageDraw.Draw(image)
    left, top, right, bottom = pen.textbbox(middle, words, font=font, anchor="mm")
    pen.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill="white")
    pen.text(middle, words, "black", font, anchor="mm")
    return np.asarray(image)


def attack(model, picture, words, labels, count=4, seed=0):
    """A picture with words on it, what CLIP takes it for, and variations of it.

    Args:
        model: UnCLIP.
        picture: one picture (`picture_arrays`).
        words: written across it.
        labels: captions that the zero-shot classifier chooses from.
        count: variations.
        seed: of the variations.

    Returns:
        (uint8 [1 + count, y', x', 3]: the attacked picture and its variations;
        {label: (probability without the words, probability with them)}).
    """
    picture = np.asarray(as_bytes(picture, 1))[0]
    label = attacked(picture, words)
    pair = np.stack([picture, label])
    before, after = np.asarray(classify(model.clip, model.tokenizer, pair, labels))
    made = to_uint8(variations(model, label, count, seed=seed))
    side = made.shape[1:3][::-1]
    shown = np.asarray(Image.fromarray(label).resize(side, Image.Resampling.BICUBIC))
    chances = {n: (float(a), float(b)) for n, a, b in zip(labels, before, after)}
    return np.concatenate([shown[None], made]), chances
