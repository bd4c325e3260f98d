"""The two sides of `dalle2 evaluate` and the networks between them, from its flags."""

import dataclasses
import sys
from pathlib import Path

DRAWN = 200  # samples of a model where neither --n nor a protocol says


def opened(args):
    """Setup and Material of the arguments.

    Raises:
        BadInput: something is missing or cannot be read; says which.
    """
    from dalle2_jax.evaluate.judge import Material, Setup
    from dalle2_jax.evaluate.scores import named_scores
    from dalle2_jax.unclip import load

    names = named_scores(metrics_of(args)) if args.model or args.samples else []
    protocol = protocol_asked(args)
    model = load(args.model) if args.model else None
    given, side = given_samples(args, protocol, model)
    protocol = dataclasses.replace(protocol, size=protocol.size or side)
    main, clip, text = networks(args, protocol, model)
    data = data_set(args, protocol)
    reference, statistics = reference_of(args, main, data)
    if model is not None:
        samples, facts = drawn(args, protocol, model, data)
        paired = reference is data and not (args.captions or is_coco(args))
        few = args.n_reference or (samples.count if paired else None)
        reference = reference and first(reference, few)
    elif given is None:
        samples, facts, reference = reference, {"name": reference.name}, None
    else:
        samples = with_captions(args, protocol, given)
        facts = {"name": given.name}
        reference = reference and first(reference, args.n_reference)
    protocol = deviations(protocol, samples.count, reference)
    material = Material(samples, reference, statistics, facts)
    clean = clean_network(args, names)
    return Setup(names, protocol, main, clip, text, clean, args.neighbours), material


def metrics_of(args):
    """--metrics, or the usual ones; COCO's protocol has FID by two rules of resize."""
    from dalle2_jax.cli.evaluate import METRICS
    from dalle2_jax.evaluate.protocol import COCO

    both = args.protocol == COCO and args.inception
    return args.metrics or (f"fid_clean,{METRICS}" if both else METRICS)


def clean_network(args, names):
    """The Extractor of Inception by the clean resize; None where no number asks."""
    from dalle2_jax.evaluate.features import inception_extractor

    if "fid_clean" not in names or args.inception is None:
        return None
    return inception_extractor(args.inception, "clean")


def protocol_asked(args):
    """The Protocol that the flags name, changed by the others of them."""
    from dalle2_jax.errors import BadInput
    from dalle2_jax.evaluate.protocol import Protocol, protocol_of
    from dalle2_jax.evaluate.resize import RESIZES

    base = protocol_of(args.protocol) if args.protocol else Protocol()
    if args.resize not in (None, *RESIZES):
        raise BadInput(f"--resize {args.resize} is none of {', '.join(RESIZES)}.")
    given = {name: getattr(args, name) for name in ("resize", "crop", "size")}
    changed = {k: v for k, v in given.items() if v not in (None, getattr(base, k))}
    if args.protocol and changed:
        said = ", ".join(f"{name}={value}" for name, value in changed.items())
        changed["name"] = f"{base.name}, but {said}"
    try:
        return dataclasses.replace(base, **changed)
    except AssertionError as error:
        raise BadInput(f"--crop {args.crop}: {error}.") from error


def deviations(protocol, n, reference):
    """A named protocol with other numbers of pictures says so in its name."""
    wanted = {"n": (n, protocol.n)}
    if reference is not None:
        wanted["references"] = (reference.count, protocol.references)
    others = [f"{k}={v[0]}" for k, v in wanted.items() if v[1] not in (0, v[0])]
    said = ", ".join(others)
    joint = ", " if ", but " in protocol.name else ", but "
    name = f"{protocol.name}{joint}{said}" if said else protocol.name
    return dataclasses.replace(protocol, name=name)


def given_samples(args, protocol, model):
    """(PictureSet of --samples or None, the side of the pictures to be judged).

    Raises:
        BadInput: pictures that are not square, without --size.
    """
    from dalle2_jax.errors import BadInput
    from dalle2_jax.evaluate.pictures import open_pictures, side_of
    from dalle2_jax.unclip import need

    if model is not None:
        need(model, "clip", "decoder")
        return None, side_of(model)
    if args.samples is None:
        return None, protocol.size or first_side(data_set(args, protocol))
    found = first(open_pictures(args.samples), args.n)
    y, x = found.fetch([0]).shape[1:3]
    if protocol.size and min(y, x) > protocol.size or args.size:
        found = first(open_pictures(args.samples, protocol.size, protocol.crop), args.n)
        return found, protocol.size
    if y != x and not protocol.size:
        raise BadInput(f"{args.samples} has pictures of {x}x{y}; give --size.")
    return found, x


def first_side(pictures):
    """The side of square pictures. Raises BadInput where the first is not square."""
    from dalle2_jax.errors import BadInput

    y, x = pictures.fetch([0]).shape[1:3]
    if y != x:
        raise BadInput(f"{pictures.name} begins with {x}x{y}; give --size.")
    return x


def first(pictures, n):
    """The first n pictures of a set; all of them for None.

    Raises:
        BadInput: there are fewer.
    """
    from dalle2_jax.errors import BadInput

    if n is None or n == pictures.count:
        return pictures
    if n > pictures.count:
        raise BadInput(
            f"{pictures.name} holds {pictures.count} pictures; ask for no more than "
            f"that instead of {n}."
        )
    captions = None if pictures.captions is None else pictures.captions[:n]
    return pictures._replace(count=n, captions=captions)


def networks(args, protocol, model):
    """(main Extractor, Extractor of CLIP or None, captions -> z_t or None)."""
    from dalle2_jax.errors import BadInput
    from dalle2_jax.evaluate import features

    kind = args.features or ("inception" if args.inception else "clip")
    clip, text = clip_networks(args, model)
    if kind == "inception" and args.inception is None:
        raise BadInput("--features inception needs its weights; give --inception FILE.")
    if kind == "inception":
        return features.inception_extractor(args.inception, protocol.resize), clip, text
    if kind != "clip":
        return features.plugin_extractor(kind), clip, text
    if clip is None:
        raise BadInput("no feature network: give --inception FILE or --clip DIR.")
    if args.inception is None:
        print(
            f"no --inception: features are those of the {clip.name}; such distances "
            "compare with no published FID.",
            file=sys.stderr,
        )
    return clip, clip, text


def clip_networks(args, model):
    """(Extractor, captions -> z_t) of --clip's CLIP, else of the model's; or Nones."""
    from dalle2_jax.components import load_component
    from dalle2_jax.data.tokens import Tokenizer
    from dalle2_jax.evaluate.clip_score import text_features
    from dalle2_jax.evaluate.features import clip_extractor

    folder = args.clip or args.model
    if folder is None:
        return None, None
    clip = model.clip if args.clip is None else load_component(folder, "clip")
    tokenizer = Tokenizer.load(f"{folder}/tokenizer")
    own = ", which the samples are drawn with" if folder == args.model else ""
    name = f"CLIP of {Path(folder).resolve().name}{own}"

    def text(captions):
        return text_features(clip, tokenizer, captions)

    return clip_extractor(clip, name), text


def data_set(args, protocol):
    """The PictureSet of --data; None where it is not given."""
    from dalle2_jax.evaluate.coco import coco_pictures
    from dalle2_jax.evaluate.pictures import open_pictures, shard_pictures

    ways = protocol.size, protocol.crop
    if not args.data:
        return None
    if is_coco(args):
        return coco_pictures(args.data[0], *ways)
    if len(args.data) > 1:
        return shard_pictures(args.data, *ways)
    return open_pictures(args.data[0], *ways)


def reference_of(args, main, data):
    """(PictureSet or None, path of statistics or None).

    A file of statistics may hold pictures too (ADM's): its moments are Inception's, so
    that for other features they are left aside.
    """
    from dalle2_jax.data.numpy_files import arrays_of
    from dalle2_jax.errors import BadInput
    from dalle2_jax.evaluate.pictures import array_pictures

    if args.reference is None:
        return data, None
    if data is not None and not args.model:
        raise BadInput("give --data or --reference as the other side, not both.")
    held = arrays_of(args.reference, lambda name: False)
    pictures = array_pictures(args.reference) if "arr_0" in held else None
    fitting = "protocol" in held or main.name.startswith("inception")
    return pictures, args.reference if fitting or pictures is None else None


def is_coco(args):
    """Whether --data is a folder of COCO's files."""
    from dalle2_jax.evaluate.protocol import COCO

    return args.protocol == COCO and bool(args.data)


def drawn(args, protocol, model, data):
    """(PictureSet that the model draws, its JSON-able facts)."""
    import hashlib

    from dalle2_jax.cli.sample import ways
    from dalle2_jax.errors import BadInput
    from dalle2_jax.evaluate.pictures import drawn_pictures
    from dalle2_jax.evaluate.protocol import model_facts

    n = args.n or protocol.n or DRAWN
    captions = captions_for(args, n, data)
    if captions is None:
        raise BadInput(f"{data.name} has no captions to draw from; give --captions.")
    if len(captions) < n:
        raise BadInput(f"there are {len(captions)} captions; lower --n from {n}.")
    how = ways(model, args.steps, args.guidance)
    facts = model_facts(args.model, model, how, args.seed)
    said = "\n".join(captions[:n]).encode()
    facts["captions_sha256"] = hashlib.sha256(said).hexdigest()
    ways_to = (how, args.seed, protocol.size, args.unit)
    return drawn_pictures(model, captions[:n], *ways_to), facts


def captions_for(args, n, data):
    """Captions of the samples: COCO's, of --captions, or of --data; or None."""
    from dalle2_jax.data.text import read_captions
    from dalle2_jax.evaluate.coco import coco_captions

    if is_coco(args):
        return coco_captions(args.data[0], n, args.captions)
    if args.captions:
        return read_captions(args.captions)
    return None if data is None else data.captions


def with_captions(args, protocol, samples):
    """Given samples with the captions that the flags name for them, if any.

    Raises:
        BadInput: there are fewer captions than samples.
    """
    from dalle2_jax.errors import BadInput

    if not (args.captions or is_coco(args)):
        return samples
    captions = captions_for(args, samples.count, None)
    if len(captions) < samples.count:
        raise BadInput(
            f"{samples.count} samples have {len(captions)} captions; lower --n or give "
            "a caption for each."
        )
    return samples._replace(captions=captions[: samples.count])
