"""unCLIP §2: what CLIP alone can do: name a picture (CLIP, section 3.1), find a pair.

Both take CLIP as trained or imported; no class was ever trained on.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.clip.contrastive import MAX_LOG_SCALE, Clip
from dalle2_jax.clip.image import preprocess
from dalle2_jax.data.picture_arrays import as_bytes
from dalle2_jax.data.tokens import as_captions
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.embeddings import normalised


def classify(clip, tokenizer, images, names, templates=("{}",), batch=64):
    """How probable each class is for each picture (CLIP, sections 3.1.2 and 3.1.4).

    Args:
        clip: component of CLIP, with `cfg` and `params`.
        tokenizer: Tokenizer of the same model.
        images: n pictures (`picture_arrays`).
        names: of the classes, put where a template has "{}".
        templates: captions such as "a photo of a {}."; a class's vector is the mean
            over them.
        batch: pictures per device program.

    Returns:
        float32 [n, classes], rows that sum to 1: the softmax of the scaled cosines.

    Raises:
        BadInput: no classes, no templates, a template without "{}", or CLIP has no
            image tower.
    """
    if clip.cfg.image is None:
        raise BadInput("this CLIP has no image tower; import one that has both.")
    classes = class_vectors(clip, tokenizer, names, templates)
    if hasattr(images, "__len__") and not len(images):
        return np.zeros((0, len(classes)), np.float32)
    images = as_bytes(images)
    firsts = range(0, len(images), batch)
    parts = [
        _probabilities(clip.cfg, clip.params, images[first : first + batch], classes)
        for first in firsts
    ]
    return np.concatenate(parts)


def class_vectors(clip, tokenizer, names, templates=("{}",)):
    """Unit vectors of classes, the mean over their captions: float32 [classes, clip].

    Arguments and errors as in `classify`.
    """
    names, templates = as_captions(names), as_captions(templates)
    if not names or not templates:
        raise BadInput("zero-shot classification needs a class and a template.")
    if wrong := [text for text in templates if "{}" not in text]:
        raise BadInput(f"the template {wrong[0]!r} has no {{}} to put a class into.")
    captions = [[text.replace("{}", name) for text in templates] for name in names]
    context = clip.cfg.text.context
    tokens = [tokenizer.encode(of_one, context) for of_one in captions]
    return jnp.stack([_mean_vector(clip.cfg, clip.params, t) for t in tokens])


def retrieval(z_image, z_text, at=(1, 5, 10), chunk=1024):
    """Recall at k both ways, of pairs that stand in the same row.

    A pair counts as found if fewer than k of the others are at least as similar, so
    that vectors that are all alike find nothing.

    Args:
        z_image, z_text: unit vectors [n, clip].
        at: the k.
        chunk: rows that are compared at once.

    Returns:
        {"image_to_text@1": share of pictures whose caption is found, ...,
        "text_to_image@1": ...}.
    """
    ways = {"image_to_text": (z_image, z_text), "text_to_image": (z_text, z_image)}
    result = {}
    for way, (asked, offered) in ways.items():
        better = _rivals(np.asarray(asked), np.asarray(offered), chunk)
        result |= {f"{way}@{k}": float(np.mean(better < k)) for k in at}
    return result


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(cfg, params, images, classes):
    pixels = preprocess(cfg.image, images.astype(jnp.float32) / 127.5 - 1)
    z_image = Clip(cfg).apply({"params": params}, pixels, method="encode_image")
    scale = jnp.exp(jnp.minimum(params["log_scale"], MAX_LOG_SCALE))
    return jax.nn.softmax(scale * normalised(z_image) @ classes.T)


@functools.partial(jax.jit, static_argnums=0)
def _mean_vector(cfg, params, tokens):
    """Unit mean of the unit vectors of tokens [b, n]."""
    z_text = Clip(cfg).apply({"params": params}, tokens, method="encode_text").pooled
    return normalised(normalised(z_text).mean(0))


def _rivals(asked, offered, chunk):
    """How many others are at least as close to row i as its own partner; int [n]."""
    counts = []
    for first in range(0, len(asked), chunk):
        cosines = asked[first : first + chunk] @ offered.T
        rows = np.arange(len(cosines))
        own = cosines[rows, first + rows][:, None]
        counts.append(np.sum(cosines >= own, axis=1) - 1)
    return np.concatenate(counts)
