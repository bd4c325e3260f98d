"""`dalle2 study prior` and `dalle2 study clip`: what the embeddings are worth."""

from dalle2_jax.cli.studying import (
    add_common,
    add_features,
    extractor_of,
    notes_of,
    opened,
    print_table,
    write_study,
)

SHOWN = 8  # captions of the sheet of pictures
SCORES = ("clip_score", "frechet", "recall", "r_precision")


def add_verbs(studies):
    """The flags of both studies."""
    prior = studies.add_parser("prior", help="5.1: caption, z_t as z_i, prior; cosines")
    add_common(prior)
    add_features(prior)
    prior.set_defaults(call=prior_study)
    clip = studies.add_parser("clip", help="retrieval both ways, R-precision")
    add_common(clip)
    clip.set_defaults(call=clip_study)


def prior_study(args):
    """Every route on the same captions: a table, cosines, JSON and a sheet."""
    from dalle2_jax.data.embeddings import is_embeddings

    if args.data and is_embeddings(args.data[0]):
        embeddings_study(args)
        return
    model, how, asked = opened(args)
    from dalle2_jax.evaluate.prior_importance import cosines, finding, prior_importance
    from dalle2_jax.evaluate.protocol import model_facts
    from dalle2_jax.evaluate.yardstick import facts, yardstick

    measure = yardstick(model, asked, extractor_of(args))
    judged = prior_importance(model, measure, args.seed, how)
    scores = {route: found.scores for route, found in judged.items()}
    drawn = model_facts(args.model, model, how, args.seed)
    print_routes(scores, notes_of(measure, drawn))
    near = cosines(measure, judged)
    print_cosines(near)
    said = finding(scores, near["full_stack"]) if near else ""
    print(said)
    rows = {
        route: reported(measure, found, drawn | {"route": route})
        for route, found in scores.items()
    }
    about = facts(measure, "cosine", drawn)
    angles = {route: with_errors(found, about) for route, found in near.items()}
    write_study(args, {"routes": rows, "cosines": angles, "finding": said})
    if args.out:
        _sheet(args, asked, judged)


def embeddings_study(args):
    """The prior's cosines alone, on a folder of embeddings: no picture is needed."""
    from dalle2_jax.cli.machine import start_jax

    start_jax()
    from dalle2_jax.cli.sample import ways
    from dalle2_jax.data.embeddings import EmbeddingSource
    from dalle2_jax.evaluate.prior_scores import score_rows
    from dalle2_jax.evaluate.protocol import Protocol, model_facts, provenance
    from dalle2_jax.unclip import load, need, prior_of

    model, source = load(args.model), EmbeddingSource(args.data[0])
    need(model, "clip", prior_of(model))
    how = ways(model, args.steps, args.guidance, args.sampler)
    near = {"full_stack": score_rows(model, source, args.n, args.seed, how)}
    print_cosines(near)
    drawn = model_facts(args.model, model, how, args.seed)
    reference = {"name": f"first rows of {source.folder.name}", "n": args.n}
    about = provenance(args.n, Protocol(n=args.n), None, reference, drawn)
    angles = {route: with_errors(found, about) for route, found in near.items()}
    write_study(args, {"cosines": angles})


def reported(measure, scores, drawn):
    """Numbers with their provenance, of the scores of one route."""
    from dalle2_jax.evaluate.protocol import number
    from dalle2_jax.evaluate.yardstick import facts

    found = {
        name: number(scores[name], facts(measure, name, drawn))
        for name in SCORES
        if name in scores
    }
    if "frechet_error" in scores:
        found["frechet"]["standard_error"] = scores["frechet_error"]
    plain = facts(measure, "accuracy", drawn)
    found["accuracy"] = {
        name: number(share, plain) | {"standard_error": scores["standard_error"][name]}
        for name, share in scores["accuracy"].items()
    }
    return found


def with_errors(found, about):
    """{name: number} of {name: (mean, standard error)}; about: their provenance."""
    from dalle2_jax.evaluate.protocol import number

    return {
        name: number(mean, about) | {"standard_error": error}
        for name, (mean, error) in found.items()
    }


def print_routes(scores, notes=()):
    """One row per route: attributes in percent right, then the other scores."""
    from dalle2_jax.evaluate.routes import NAMED

    first = next(iter(scores.values()))
    attributes = list(first["accuracy"])
    others = [name for name in SCORES if name in first]
    rows = [
        [NAMED[route]]
        + [f"{100 * found['accuracy'][a]:.1f}" for a in attributes]
        + [_told(found, name) for name in others]
        + [str(found["n"])]
        for route, found in scores.items()
    ]
    percent = ["attributes in percent right"] if attributes else []
    print_table(["z_i from", *attributes, *others, "n"], rows, [*percent, *notes])


def _told(found, name):
    """A score, with its standard error where there is one."""
    error = found.get(f"{name}_error")
    return f"{found[name]:.4f}" + (f" ± {error:.4f}" if error is not None else "")


def print_cosines(near):
    """One row per cosine, one column per prior."""
    from dalle2_jax.evaluate.prior_scores import COSINES
    from dalle2_jax.evaluate.routes import NAMED

    rows = [
        [
            called,
            *(
                f"{found[name][0]:+.4f} ± {found[name][1]:.4f}"
                for found in near.values()
            ),
        ]
        for name, called in COSINES.items()
    ]
    if near:
        print_table(["cosine", *(NAMED[route] for route in near)], rows)


def _sheet(args, asked, judged):
    """prior.png: real pictures and every route, one column a caption."""
    import numpy as np

    from dalle2_jax.cli.pictures import contact_sheet
    from dalle2_jax.data.provenance import save_picture
    from dalle2_jax.evaluate.routes import NAMED

    shown = min(SHOWN, len(asked.captions))
    rows = [asked.images, *(found.pictures for found in judged.values())]
    names = ["real pictures", *(NAMED[route] for route in judged)]
    side = max(128, max(row.shape[1] for row in rows))
    blocks = [_sized(row[:shown], side) for row in rows]
    captions = [""] * shown * (len(rows) - 1) + list(asked.captions[:shown])
    sheet = contact_sheet(np.concatenate(blocks), captions, shown, names, side)
    facts = {"study": "prior", "model": args.model.name, "seed": args.seed}
    save_picture(args.out / "prior.png", sheet, facts)
    print(f"{args.out}/prior.png shows {shown} captions by every route")


def _sized(pictures, side):
    """uint8 [n, y, x, 3] at one size, so that rows of a sheet can be put together."""
    import numpy as np
    from PIL import Image

    shown = [
        Image.fromarray(x).resize((side, side), Image.Resampling.NEAREST)
        for x in pictures
    ]
    return np.stack([np.asarray(x) for x in shown])


def clip_study(args):
    """Retrieval of the real pictures; R-precision of real and of drawn ones."""
    model, how, asked = opened(args)
    from dalle2_jax.evaluate.prior_importance import clip_retrieval
    from dalle2_jax.evaluate.protocol import model_facts, number
    from dalle2_jax.evaluate.retrieval import r_precision
    from dalle2_jax.evaluate.routes import embedding, pictures, routes_of
    from dalle2_jax.evaluate.yardstick import facts, see, yardstick

    measure = yardstick(model, asked)
    real = clip_retrieval(measure)
    route = routes_of(model)[0]
    z = embedding(model, route, asked.captions, measure.z_real, args.seed, how)
    seen = see(measure, pictures(model, route, asked.captions, z, args.seed, how))
    share, _ = r_precision(seen.z_image, measure.z_text, asked.captions)
    told = model_facts(args.model, model, how, args.seed)
    print_retrieval(real, share, notes_of(measure, told))
    about = facts(measure, "retrieval")
    drawn = facts(measure, "r_precision", told)
    found = {
        way: {str(k): number(value, about) for k, value in real[way].items()}
        for way in ("image_to_text", "text_to_image")
    }
    found["r_precision_real"] = number(real["r_precision"], about)
    found["r_precision_drawn"] = number(share, drawn)
    write_study(args, {"recall": found, "distractors": real["distractors"]})


def print_retrieval(real, share, notes=()):
    """Recall both ways, then R-precision of real and of drawn pictures."""
    ways = {
        "image_to_text": "picture to caption",
        "text_to_image": "caption to picture",
    }
    ranks = list(real["image_to_text"])
    rows = [
        [name, *(f"{real[way][k]:.3f}" for k in ranks)] for way, name in ways.items()
    ]
    said = (
        f"R-precision among {real['distractors']} other captions: real pictures "
        f"{real['r_precision']:.3f}, drawn ones {share:.3f}"
    )
    columns = ["real pictures", *(f"recall@{k}" for k in ranks)]
    print_table(columns, rows, [said, *notes])
