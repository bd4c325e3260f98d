"""The ways by which a decoder is told what to draw (unCLIP §5.1)."""

import numpy as np

from dalle2_jax.evaluate.prior_scores import prior_embeddings
from dalle2_jax.unclip import generate, need, prior_of

ROUTES = {  # name in reports -> route of unclip.draw
    "full_stack": "prior",
    "text_embedding": "text",
    "caption_only": "none",
    "true_embedding": "image",
}
SECOND = "autoregressive_prior"  # where a model holds it beside the diffusion prior
FROM_PRIOR = ("full_stack", SECOND)
NAMED = {
    "full_stack": "full stack",
    SECOND: "autoregressive prior",
    "text_embedding": "text embedding as z_i",
    "caption_only": "caption only",
    "true_embedding": "true embedding",
}


def routes_of(model):
    """Names of all the routes that a model has, in the order of reports."""
    first, *others = ROUTES
    stage = prior_of(model)
    two = model.autoregressive is not None and stage != "autoregressive"
    from_prior = [first] if getattr(model, stage) is not None else []
    return from_prior + ([SECOND] if two else []) + others


def embedding(model, route, captions, z_real, seed=0, how=None):
    """z_i [n, clip] that the decoder is given on a route; None where it needs none.

    Args:
        model: UnCLIP.
        route: a name of NAMED.
        captions: n strings.
        z_real: z_i of real pictures of the captions, [n, clip].
        seed, how: as in `unclip.generate`.

    Raises:
        BadInput: the model lacks what the route needs.
    """
    if route == "true_embedding":
        return z_real
    if route not in FROM_PRIOR:
        return None
    need(model, prior_on(model, route))
    if route == SECOND:
        model = model._replace(prior=None, prior_dalle2_pytorch=None)
    return prior_embeddings(model, captions, seed, how)


def prior_on(model, route):
    """The stage that z_i of a route in FROM_PRIOR comes from."""
    return "autoregressive" if route == SECOND else prior_of(model)


def pictures(model, route, captions, z_image, seed=0, how=None):
    """uint8 [n, y, x, 3] on a route; z_image: what `embedding` gave, or None."""
    of_draw = ROUTES.get(route) if z_image is None else "image"
    drawn = generate(model, captions, seed, how=how, route=of_draw, z_image=z_image)
    return np.concatenate(list(drawn))
