"""What the gradients of judges draw by themselves (GLIDE section 2.4, ADM section 4).

The decoder hears neither z_i nor the caption (guidance 0), so that whatever is right in
its pictures beyond chance came through a judge.
"""

import dataclasses

from dalle2_jax.data.labels import known_classes
from dalle2_jax.data.shard_reader import field_of
from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.attributes import accuracy
from dalle2_jax.evaluate.routes import pictures
from dalle2_jax.unclip import Request, sampling_of

STRENGTHS = {"noised_clip": "clip_guidance", "classifier": "classifier_guidance"}


def judges_of(model):
    """The judges that a model holds.

    Raises:
        BadInput: it holds none.
    """
    found = [name for name in STRENGTHS if getattr(model, name) is not None]
    if not found:
        raise BadInput(
            f"the model holds no judge: {' or '.join(STRENGTHS)}; train one."
        )
    return found


def drawn_by(model, judge, wanted, scales, seed=0, how=None):
    """Draws what a judge asks for, at one strength after the other.

    Args:
        model: UnCLIP with clip, decoder and the judge.
        judge: a name of STRENGTHS.
        wanted: Wanted of a generated world.
        scales: strengths of the gradient.
        seed: of the samples.
        how: {stage: Sampling}; the decoder's guidance is set to 0.

    Yields:
        (strength, {"accuracy", "standard_error", "n"}, pictures uint8 [n, y, x, 3]).

    Raises:
        BadInput: a classifier whose labels this world does not have.
    """
    request = Request(wanted.captions)
    if judge == "classifier":
        labels = labels_of(model.classifier, wanted.specs)
        request = request._replace(labels=labels)
    way = (how or {}).get("decoder") or sampling_of(model.decoder)
    for scale in scales:
        change = {"guidance": 0.0, STRENGTHS[judge]: scale}
        ways = {**(how or {}), "decoder": dataclasses.replace(way, **change)}
        made = pictures(model, "caption_only", request, None, seed, ways)
        yield scale, accuracy(wanted.specs, wanted.world, made), made


def labels_of(classifier, specs):
    """The numbers of the classes that Specs belong to, as the classifier was told.

    Raises:
        BadInput: it was trained elsewhere, or on labels that these have not.
    """
    classes = known_classes(classifier)
    field = classifier.config.get("data", {}).get("caption", "")
    labels = [field_of(spec.as_dict(), field) for spec in specs]
    unknown = next((label for label in labels if label not in classes.numbers), None)
    if unknown is not None:
        raise BadInput(
            f"the classifier learned {field or 'unknown labels'} "
            f"({classes.said()}), and this world has {unknown or 'nothing'!r} there; "
            "train one on this world (configs/classifier.py:small)."
        )
    return [classes.numbers[label] for label in labels]
