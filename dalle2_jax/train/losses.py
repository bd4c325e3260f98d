"""One loss per stage: (params, frozen, batch, key) -> (scalar, metrics).

A stage brings only this, in two halves (Loss): what the network is shown, which nothing
is learned from, and how its answer is scored. CLIP is frozen for every other stage and
runs in the first half, on the same pictures, resized on the device.

Batches of embeddings (data.embeddings.Encoded) need no image tower, and no CLIP at all
where they hold z_t. Priors take any condition in its place (Embedded): then
LOSSES["prior"](run, None) is called with frozen = {}.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dalle2_jax.clip.contrastive import Clip, contrastive_loss
from dalle2_jax.clip.image import preprocess
from dalle2_jax.clip.noised import NoisedClip
from dalle2_jax.data.embeddings import Encoded
from dalle2_jax.decoder.bsr import RECIPES, bsr
from dalle2_jax.decoder.classifier import Classifier
from dalle2_jax.decoder.decoder import Decoder, forget
from dalle2_jax.decoder.degrade import blur, crops
from dalle2_jax.decoder.upsampler import Upsampler
from dalle2_jax.diffusion.objective import diffusion_loss, draw_times, noised
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.embeddings import normalised
from dalle2_jax.prior.autoregressive import Autoregressive, code_loss, codes_of
from dalle2_jax.prior.codes import decode, dot_token, encode
from dalle2_jax.prior.diffusion import Prior, to_scaled
from dalle2_jax.train.optim import SAM_AXIS
from dalle2_jax.unclip import (
    Caption,
    decoder_condition,
    encode_captions,
    encode_images,
    from_uint8,
    prior_text,
)


class Embedded(NamedTuple):
    """A prior's batch without pictures.

    z_image float32 [b, clip], unit norm; pooled float32 [b, clip], z_t or what stands
    for it; states [b, n, text_width]; mask bool [b, n], True = a real token.
    """

    z_image: jax.Array
    pooled: jax.Array
    states: jax.Array
    mask: jax.Array


@dataclasses.dataclass(frozen=True)
class Loss:
    """A stage's loss; called, it is (params, frozen, batch, key) -> (scalar, metrics).

    prepare: (frozen, batch, key) -> tree of arrays [b, ...], randomness included.
    score: (params, shown, key) -> (scalar, metrics); metrics are scalars, or arrays [b]
    with a value per example. The scalar is a mean over examples, but CLIP's.
    """

    prepare: Callable
    score: Callable

    def __call__(self, params, frozen, batch, key):
        """The whole loss of one batch."""
        return self.score(params, self.prepare(frozen, batch, key), key)


class Noising(NamedTuple):
    """What a diffusion loss shows: x_0, eps [b, ...], t int32 [b], and a condition."""

    x_0: jax.Array
    eps: jax.Array
    t: jax.Array
    given: Any


def clip_loss(run, clip_cfg):
    """unCLIP §2: symmetric cross-entropy over the global batch (CLIP, Figure 3)."""
    axis = SAM_AXIS if run.optim.sam_rho else None

    def prepare(frozen, batch, key):
        return preprocess(run.model.image, from_uint8(batch.image)), batch.tokens

    def score(params, shown, key):
        z = Clip(run.model).apply({"params": params}, *shown)
        return contrastive_loss(*z, axis)

    return Loss(prepare, score)


def noised_clip_loss(run, clip_cfg):
    """GLIDE section 2.4: CLIP's loss on noised pictures, each at a step of its own."""
    size, noise = run.model.image.size, run.noise
    if noise.steps > run.model.times:
        raise BadInput(
            f"config.noise.steps = {noise.steps} is more than config.model.times = "
            f"{run.model.times}, the steps the network can be told; raise the latter."
        )
    axis = SAM_AXIS if run.optim.sam_rho else None

    def prepare(frozen, batch, key):
        return _noising(resize(batch.image, size), batch.tokens, noise, key)

    def score(params, shown, key):
        x_t = noised(shown.x_0, shown.eps, shown.t, noise)
        apply = NoisedClip(run.model).apply
        z = apply({"params": params}, x_t, shown.t, shown.given)
        return contrastive_loss(*z, axis)

    return Loss(prepare, score)


def classifier_loss(run, clip_cfg):
    """ADM section 4: cross-entropy of the labels of noised pictures, in nats.

    A label is the one token of its sample's caption (data/labels.py).
    """
    cfg, noise = run.model, run.noise

    def prepare(frozen, batch, key):
        label = batch.tokens[:, 0]
        return _noising(resize(batch.image, cfg.size), label, noise, key)

    def score(params, shown, key):
        x_t = noised(shown.x_0, shown.eps, shown.t, noise)
        rngs = {"dropout": key}
        apply = Classifier(cfg).apply
        logits = apply({"params": params}, x_t, shown.t, train=True, rngs=rngs)
        label = shown.given
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        right = jnp.mean(jnp.argmax(logits, axis=-1) == label)
        metrics = {"accuracy": right, "losses": losses, "times": shown.t}
        return losses.mean(), metrics

    return Loss(prepare, score)


def prior_loss(run, clip_cfg):
    """unCLIP eq. 2: mean of ||f(z_noised, t, y) - z_i||^2 over t and noise."""
    cfg, noise = run.model, run.noise

    def prepare(frozen, batch, key):
        k_noise, k_keep = jax.random.split(key)
        if cfg.null == "empty":
            batch = _emptied(batch, k_keep, run.corrupt.drop_text)
        caption, z_image = embed(clip_cfg, frozen, batch)
        text = prior_text(caption, cfg.null)
        if cfg.null == "learned":
            text = _sometimes(caption, k_keep, run.corrupt.drop_text)
        return _noising(z_image, text, noise, k_noise)

    def score(params, shown, key):
        z_0 = jax.lax.stop_gradient(to_scaled(cfg, params, shown.x_0))

        def model(z_noised, t):
            return Prior(cfg).apply({"params": params}, z_noised, t, shown.given)

        return _denoising(model, shown._replace(x_0=z_0), noise)

    return Loss(prepare, score)


def autoregressive_loss(run, clip_cfg):
    """unCLIP §2.2: cross-entropy of the codes of z_i, in nats per code.

    Metrics: accuracy of the codes; explained, the share of the variance that the kept
    components hold; lost, the share that the codes do not, with their rounding.
    """
    cfg = run.model

    def prepare(frozen, batch, key):
        caption, z_image = embed(clip_cfg, frozen, batch)
        return z_image, _sometimes(caption, key, run.corrupt.drop_text), caption.pooled

    def score(params, shown, key):
        z_image, text, z_text = shown
        tables = codes_of(jax.lax.stop_gradient(params))
        codes = encode(tables, z_image)
        lost = jnp.sum((decode(tables, codes) - z_image) ** 2)
        lost = lost / jnp.sum((z_image - tables.mean) ** 2)
        dot = dot_token(params["dot_edges"], z_image, z_text)
        logits = Autoregressive(cfg).apply({"params": params}, text, dot, codes)
        right = jnp.mean(jnp.argmax(logits, axis=-1) == codes)
        metrics = {"accuracy": right, "lost": lost, "explained": tables.share.sum()}
        return code_loss(logits, codes).mean(), metrics

    return Loss(prepare, score)


def decoder_loss(run, clip_cfg):
    """unCLIP §2.1: GLIDE's objective, the embedding and the caption dropped apart."""
    cfg, noise, how = run.model, run.noise, run.corrupt
    absent = 0.0 if how.empty else how.drop_text

    def prepare(frozen, batch, key):
        k_noise, k_forget, _ = jax.random.split(key, 3)
        if how.empty:
            k_empty = jax.random.fold_in(k_forget, len(batch.tokens))
            batch = _emptied(batch, k_empty, how.drop_text)
        caption, z_image = embed(clip_cfg, frozen, batch)
        if how.noise_image > 0:
            z_image = turned(z_image, how.noise_image, jax.random.fold_in(key, 3))
        given = decoder_condition(caption, z_image, clip_cfg.unit)
        condition = forget(given, k_forget, how.drop_image, absent)
        return _noising(resize(batch.image, cfg.size), condition, noise, k_noise)

    def score(params, shown, key):
        rngs = {"dropout": jax.random.split(key, 3)[2]}

        def model(x_t, t):
            apply = Decoder(cfg).apply
            return apply({"params": params}, x_t, t, shown.given, train=True, rngs=rngs)

        return _denoising(model, shown, noise)

    return Loss(prepare, score)


def upsampler_loss(run, clip_cfg):
    """unCLIP §2.1: crops of the picture from crops of its corrupted small version."""
    cfg, noise, how = run.model, run.noise, run.corrupt

    def prepare(frozen, batch, key):
        k_noise, k_crop, k_worse, _ = jax.random.split(key, 4)
        high = resize(batch.image, cfg.size)
        if how.crop < 1:
            high = crops(k_crop, high, how.crop, cfg.factor)
        small = (len(high), *(s // cfg.factor for s in high.shape[1:3]), 3)
        if how.kind in RECIPES:
            low = bsr(k_worse, high, cfg.factor, how.kind)
        else:
            low = worsen(jax.image.resize(high, small, "linear"), k_worse, how)
        return _noising(high, low, noise, k_noise)

    def score(params, shown, key):
        rngs = {"dropout": jax.random.split(key, 4)[3]}

        def model(x_t, t):
            apply = Upsampler(cfg).apply
            return apply({"params": params}, x_t, t, shown.given, train=True, rngs=rngs)

        return _denoising(model, shown, noise)

    return Loss(prepare, score)


LOSSES = {
    "clip": clip_loss,
    "noised_clip": noised_clip_loss,
    "classifier": classifier_loss,
    "prior": prior_loss,
    "autoregressive": autoregressive_loss,
    "decoder": decoder_loss,
    "upsampler": upsampler_loss,
    "upsampler_last": upsampler_loss,
    "upsampler_2": upsampler_loss,
}


def resize(image, size):
    """uint8 [b, y, x, 3] -> float32 [b, size, size, 3] in [-1, 1], antialiased."""
    image = from_uint8(image)
    shape = (len(image), size, size, 3)
    return image if image.shape == shape else jax.image.resize(image, shape, "linear")


def worsen(low, key, how):
    """Training-time corruption of low-resolution pictures (unCLIP §2.1, CDM §4).

    Args:
        low: [b, y, x, 3] in [-1, 1].
        key: jax key.
        how: Corrupt; blur is a probability per picture, noise the largest deviation.
    """
    k_blur, k_level, k_noise = jax.random.split(key, 3)
    per_picture = (len(low), 1, 1, 1)
    if how.blur > 0:
        chosen = jax.random.bernoulli(k_blur, how.blur, per_picture)
        low = jnp.where(chosen, blur(low), low)
    if how.noise > 0:
        level = how.noise * jax.random.uniform(k_level, per_picture)
        low = low + level * jax.random.normal(k_noise, low.shape)
    return low


def turned(z_image, noise, key):
    """z_i [b, clip] plus normal noise of `noise` times its length, as long as before.

    Not in the paper. A decoder that never hears z_i exactly cannot tell apart what
    differs by less, and is at home where only priors and new captions lead.
    """
    length = jnp.linalg.norm(z_image, axis=-1, keepdims=True)
    step = length * jax.random.normal(key, z_image.shape) / z_image.shape[-1] ** 0.5
    return normalised(z_image + noise * step) * length


def _sometimes(caption, key, drop):
    """The prior's view of captions, each dropped with chance `drop`."""
    keep = jax.random.bernoulli(key, 1 - drop, caption.pooled.shape[:1])
    return prior_text(caption)._replace(keep=keep.astype(jnp.float32))


def _emptied(batch, key, drop):
    """A Captioned batch in which captions became the empty one with chance `drop`.

    Raises:
        BadInput: the batch holds embeddings, whose empty caption is not known.
    """
    if isinstance(batch, Embedded) or batch.tokens is None:
        raise BadInput(
            "config.model.null is 'empty', which needs captions; batches of embeddings "
            "alone need 'learned'."
        )
    tokens = batch.tokens
    ends = (tokens[:, 0], tokens.max(axis=1))  # the marks of start and end
    blank = jnp.zeros_like(tokens).at[:, :2].set(jnp.stack(ends, axis=1))
    gone = jax.random.bernoulli(key, drop, (len(tokens), 1))
    return batch._replace(tokens=jnp.where(gone, blank, tokens))


def embed(clip_cfg, frozen, batch):
    """Caption and z_i of a batch: Captioned, Encoded or Embedded.

    z_i that was stored is scaled as CLIP's configuration says, to norm 1 without one.
    """
    if isinstance(batch, Embedded):
        return Caption(None, batch.pooled, batch.states, batch.mask), batch.z_image
    if isinstance(batch, Encoded):
        return jax.lax.stop_gradient(_encoded(clip_cfg, frozen, batch))
    image = from_uint8(batch.image)
    caption = encode_captions(clip_cfg, frozen["clip"], batch.tokens)
    z_image = encode_images(clip_cfg, frozen["clip"], image)
    return jax.lax.stop_gradient((caption, z_image))


def _encoded(clip_cfg, frozen, batch):
    unit = clip_cfg is None or clip_cfg.unit
    z_image = normalised(batch.z_image) if unit else batch.z_image
    if batch.tokens is not None:
        return encode_captions(clip_cfg, frozen["clip"], batch.tokens), z_image
    pooled = normalised(batch.z_text) if unit else batch.z_text
    states, mask = jnp.zeros((len(pooled), 0, 0)), jnp.zeros((len(pooled), 0), bool)
    return Caption(None, pooled, states, mask), z_image


def _noising(x_0, given, noise, key):
    """x_0 with the noise and the steps it will be shown at."""
    k_time, k_eps = jax.random.split(key)
    t = draw_times(k_time, len(x_0), noise)
    return Noising(x_0, jax.random.normal(k_eps, x_0.shape), t, given)


def _denoising(model, shown, noise):
    """Mean diffusion loss of `model(x_t, t)`; losses and steps of the examples."""
    x_0, eps, t, _ = shown
    x_t = noised(x_0, eps, t, noise)
    losses, metrics = diffusion_loss(model(x_t, t), x_0, x_t, eps, t, noise)
    means = jax.tree.map(jnp.mean, metrics)
    return losses.mean(), {**means, "losses": losses, "times": t}
