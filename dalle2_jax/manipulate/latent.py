"""unCLIP §3: a picture as the bipartite latent (z_i, x_T), and back.

z_i says what CLIP sees in the picture; x_T, found by running DDIM backwards under that
z_i, says the rest. Decoded by DDIM with eta = 0 the pair gives the picture back.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dalle2_jax.cascade import run_upsamplers
from dalle2_jax.data.picture_arrays import as_floats
from dalle2_jax.data.tokens import as_captions
from dalle2_jax.decoder.decoder import Condition, Decoder
from dalle2_jax.diffusion.samplers import ddim_inverse, denoiser, sample
from dalle2_jax.diffusion.schedule import inverse_rows, rows
from dalle2_jax.errors import BadInput
from dalle2_jax.unclip import (
    Caption,
    Sampling,
    UnCLIP,
    decoder_condition,
    draw_z_image,
    encode_captions,
    encode_images,
    need,
    prior_of,
    run_stage,
    sample_decoder,
    sampling_of,
)

EXACT = Sampling(steps="100", sampler="ddim", eta=0.0)  # no guidance: invertible


class Latent(NamedTuple):
    """z_image float32 [b, clip], unit norm; x_T float32 [b, size, size, 3]."""

    z_image: jax.Array
    x_T: jax.Array


def changed(how, steps=None, guidance=None, eta=None):
    """A Sampling with other steps, guidance or eta; None leaves a field as it is.

    Raises:
        BadInput: a number is not finite.
    """
    given = {"steps": steps, "guidance": guidance, "eta": eta}
    given = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(how, **given)


def encode(
    model: UnCLIP, image: Any, captions: Any = None, how: Sampling = EXACT
) -> Latent:
    """The latents of pictures.

    Args:
        model: UnCLIP with clip and decoder.
        image: b pictures (`picture_arrays`); x_T is found at the decoder's own size.
        captions: b strings that the decoder hears beside z_i, or None.
        how: Sampling; its steps are those of the inversion.

    Returns:
        Latent.

    Raises:
        BadInput: no pictures, not as many captions, or `how` is no Sampling.
    """
    if not isinstance(how, Sampling):
        raise BadInput(f"how is {how!r}; give the Sampling of the decoder.")
    image = as_floats(image)
    z_image = embed(model, image)
    condition = condition_of(model, z_image, captions)
    part = model.decoder
    x_0 = to_size(image, part.cfg.size)
    x_T = invert(part.params, x_0, condition, cfg=part.cfg, noise=part.noise, how=how)
    return Latent(z_image, x_T)


def render(model, latent, keys, captions=None, how=EXACT, ways=None):
    """Pictures of latents: float32 [b, y, x, 3] in [-1, 1], through every upsampler.

    Args:
        model: UnCLIP.
        latent: Latent of b pictures.
        keys: [b] keys: of what DDIM adds where how.eta > 0, and of the upsamplers.
        captions: as in `encode`.
        how: the decoder's Sampling.
        ways: {stage: Sampling} of the upsamplers; default: their own.
    """
    condition = condition_of(model, latent.z_image, captions)
    function = functools.partial(sample_decoder, x_T=latent.x_T)
    if how.guidance != 1 and how.empty:
        function = functools.partial(function, empty=hear(model, [""]))
    image = run_stage(function, model.decoder, condition, keys, how)
    return run_upsamplers(model, image, keys, ways or {})


@functools.partial(jax.jit, static_argnames=("cfg", "noise", "how"))
def invert(params, x_0, condition, *, cfg, noise, how):
    """DDIM inversion under a condition (ADM appendix F): x_T [b, size, size, 3]."""

    def model(x_t, t):
        return Decoder(cfg).apply({"params": params}, x_t, t, condition)

    table = inverse_rows(rows(noise.schedule, noise.steps, how.steps))
    keys = jax.random.split(jax.random.key(0), len(x_0))  # no noise is added
    return sample(ddim_inverse, denoiser(model, noise, None), x_0, table, keys)


def see(model: UnCLIP, image: Any) -> jax.Array:
    """z_i [b, clip] of b pictures (`picture_arrays`).

    Raises:
        BadInput: no pictures, or the model has no CLIP or no decoder.
    """
    return embed(model, as_floats(image))


def embed(model: UnCLIP, image: jax.Array) -> jax.Array:
    """z_i [b, clip] of pictures float32 [b, y, x, 3] in [-1, 1]. See `see`."""
    need(model, "clip", "decoder")
    encode_jitted = jax.jit(encode_images, static_argnums=0)
    return encode_jitted(model.clip.cfg, model.clip.params, image)


def hear(model: UnCLIP, captions: Any) -> Caption:
    """The Caption of b strings, or of one."""
    tokens = model.tokenizer.encode(as_captions(captions), model.clip.cfg.text.context)
    encode_jitted = jax.jit(encode_captions, static_argnums=0)
    return encode_jitted(model.clip.cfg, model.clip.params, jnp.asarray(tokens))


def imagine(model, captions, keys, ways=None):
    """z_i [b, clip] of captions from the prior. ways: {stage: Sampling}.

    Raises:
        BadInput: the model has no CLIP or no prior.
    """
    need(model, "clip", prior_of(model))
    return draw_z_image(
        model, hear(model, captions), keys, ways or {}, hear(model, [""])
    )


def condition_of(model: UnCLIP, z_image: jax.Array, captions: Any = None) -> Condition:
    """The decoder's view of z_i [b, clip] and of b captions, or of none.

    Raises:
        BadInput: there are not as many captions as z_i.
    """
    captions = as_captions(captions, len(z_image)) if captions else None
    caption = hear(model, captions or [""] * len(z_image))
    condition = decoder_condition(caption, z_image, model.clip.cfg.unit)
    if captions or sampling_of(model.decoder).empty:  # the empty one is its null
        return condition
    return condition._replace(keep_text=jnp.zeros(len(z_image)))


def to_size(image, size):
    """float [b, y, x, c] -> [b, size, size, c], antialiased."""
    shape = (len(image), size, size, image.shape[-1])
    return image if image.shape == shape else jax.image.resize(image, shape, "linear")
