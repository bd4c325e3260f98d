"""unCLIP §2.2: the diffusion prior as lucidrains' DALLE2-pytorch and LAION built it.

Unlike `prior.diffusion`: one key and value head for all query heads with a null key in
front, rotary and bucketed relative positions instead of learned ones, gated
feed-forward layers, norms without shift, and a table of time embeddings.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.diffusion.guidance import guided
from dalle2_jax.diffusion.samplers import initial_noise
from dalle2_jax.diffusion.walk import stage_keys, walk
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.attention import heads_of, residual_init
from dalle2_jax.layers.embeddings import normalised
from dalle2_jax.layers.recompute import recomputed
from dalle2_jax.layers.transformer import UNROLLED
from dalle2_jax.prior.best_of_two import closest
from dalle2_jax.prior.diffusion import Text, nothing

BUCKETS = 32  # of relative positions; half of them exact, the rest logarithmic
FARTHEST = 128  # the distance from which on the last bucket serves
COSINE_SCALE = 16.0  # what cosine similarities are multiplied with
BIAS_GAIN = 128.0  # "dot" attention scaled its position biases up with its logits
ATTENTIONS = ("cosine", "dot")


@dataclasses.dataclass(frozen=True)
class Dalle2PytorchConfig:
    """Sizes and habits of a DALLE2-pytorch prior; its width is that of z_i.

    context: most states of a caption. text_tokens, time_tokens, image_tokens: tokens
    that pooled text, time and z_noised become. times: rows of the time table, 0 =
    sinusoids and three layers. states: false = the pooled text alone conditions.
    attention: "cosine" since 1.4.3, "dot" before. nulls: learned vectors stand for a
    dropped caption and embedding (since 1.9.0); without them there is no guidance.
    scale: of z_i in front of the diffusion, 0 = sqrt(clip). sphere, sphere_start: in
    sampling, predicted z_i and first noise are brought to the length `scale`.
    """

    clip: int
    depth: int
    heads: int = 8
    head_width: int = 64
    context: int = 256
    text_tokens: int = 1
    time_tokens: int = 1
    image_tokens: int = 1
    times: int = 1000
    mlp_ratio: float = 4.0
    norm_in: bool = False
    norm_out: bool = True
    project_out: bool = True
    normformer: bool = False
    rotary: bool = True
    states: bool = True
    attention: str = "cosine"
    nulls: bool = True
    scale: float = 0.0
    sphere: bool = False
    sphere_start: bool = False
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        assert self.attention in ATTENTIONS, "attention is cosine or dot"

    @property
    def radius(self):
        """What unit z_i is multiplied with in front of the diffusion."""
        return self.scale or self.clip**0.5

    @property
    def rotated(self):
        """How many of a head's dimensions turn with the position."""
        return min(32, self.head_width) if self.rotary else 0


def example(cfg, batch=1):
    """Shapes of the network's arguments, for `init_params` and `param_shapes`."""

    def shape(*sizes, dtype=jnp.float32):
        return jax.ShapeDtypeStruct((batch, *sizes), dtype)

    states = shape(cfg.context, cfg.clip)
    mask = shape(cfg.context, dtype=jnp.bool_)
    text = Text(shape(cfg.clip), states, mask, shape())
    return shape(cfg.clip), shape(dtype=jnp.int32), text


@functools.partial(jax.jit, static_argnames=("cfg", "noise", "how"))
def sample_z_image(params, caption, keys, *, cfg, noise, how):
    """unCLIP §2.2: z_i of each caption, the best of `how.candidates` draws.

    Args:
        params: of Dalle2PytorchPrior(cfg).
        caption: has pooled [b, clip], states [b, n, clip], mask bool [b, n].
        keys: [b]; sample i depends on caption i and key i alone.
        cfg, noise, how: configuration, Noise and ways of sampling, static.

    Returns:
        float32 [b, clip], unit norm.

    Raises:
        BadInput: guidance by a prior that never learned to do without its caption.
    """
    if how.guidance != 1 and not cfg.nulls:
        raise BadInput(
            "this prior cannot be guided: its generation had no null for the caption; "
            "set its guidance to 1."
        )
    keep = jnp.ones(len(keys))
    text = Text(normalised(caption.pooled), caption.states, caption.mask, keep)
    many = jax.tree.map(lambda x: jnp.concatenate([x] * how.candidates), text)
    keys = jnp.concatenate([stage_keys(keys, 100 + i) for i in range(how.candidates)])

    def predict(z_noised, t, text):
        return Dalle2PytorchPrior(cfg).apply({"params": params}, z_noised, t, text)

    model = guided(predict, many, nothing(many), how.guidance)
    start = initial_noise(keys, (cfg.clip,))
    start = cfg.radius * normalised(start) if cfg.sphere_start else start

    def bounded(z, t):
        return cfg.radius * normalised(model(z, t))

    z = walk(bounded if cfg.sphere else model, noise, how, start, keys)
    z = normalised(z)
    return closest(z.reshape(how.candidates, -1, cfg.clip), text.pooled)


def frequencies(rotated):
    """Rotary frequencies, float32 [rotated / 2] (Su et al. 2021, section 3.2.2)."""
    exponents = np.arange(0, rotated, 2, dtype=np.float32) / np.float32(max(rotated, 1))
    return np.float32(1) / np.float32(10_000.0 ** exponents.astype(np.float64))


def buckets(queries):
    """Bucket of every (query, key): int32 [queries, queries + 1]; the null key is 0.

    T5's buckets for looking back (Raffel et al. 2020, section 2.1); keys are counted
    from the null key on, and what lies ahead shares bucket 0.
    """
    back = np.arange(queries)[:, None] - np.arange(queries + 1)
    back, exact = np.maximum(back, 0), BUCKETS // 2
    share = np.log(np.maximum(back, 1) / exact) / np.log(FARTHEST / exact)
    far = np.minimum(exact + (share * exact).astype(int), BUCKETS - 1)
    return np.where(back < exact, back, far).astype(np.int32)


def rotate(x, rotated):
    """Turns pairs (0, 1), (2, 3), ... of x's first dimensions: x [b, n, ..., e]."""
    n, pairs = x.shape[1], rotated // 2
    angles = np.arange(n, dtype=np.float32)[:, None] * frequencies(rotated)
    angles = angles.reshape(n, *[1] * (x.ndim - 3), pairs)
    cos, sin = (f(angles).astype(x.dtype) for f in (np.cos, np.sin))
    turned, rest = x[..., :rotated], x[..., rotated:]
    even, odd = turned[..., 0::2], turned[..., 1::2]
    pair = jnp.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1)
    return jnp.concatenate([pair.reshape(turned.shape), rest], axis=-1)


class GainNorm(nn.Module):
    """LayerNorm without shift, epsilon 1e-5, float32 inside and out.

    by_max: the row is divided by its largest value first, as the last norm does.
    """

    by_max: bool = False

    @nn.compact
    def __call__(self, x):
        """x [..., d] of any float dtype -> float32 [..., d]."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        x = x.astype(jnp.float32)
        if self.by_max:
            x = x / jax.lax.stop_gradient(x.max(-1, keepdims=True))
        x = x - x.mean(-1, keepdims=True)
        variance = jnp.mean(x * x, -1, keepdims=True)
        return x * jax.lax.rsqrt(variance + 1e-5) * scale


class Attention(nn.Module):
    """Causal attention of many query heads to one key and value head."""

    cfg: Dalle2PytorchConfig

    @nn.compact
    def __call__(self, x, bias):
        """x [b, n, d], bias float32 [h, n, n + 1] -> float32 [b, n, d]."""
        cfg, (b, n, d) = self.cfg, x.shape
        null = self.param("null_kv", _SMALL, (2, cfg.head_width)).astype(x.dtype)
        q = heads_of(_dense(cfg, cfg.heads * cfg.head_width, "q")(x), cfg.heads)
        k, v = (_dense(cfg, cfg.head_width, name)(x) for name in "kv")
        q, k = (rotate(a, cfg.rotated) for a in (q, k))
        k, v = (
            jnp.concatenate([jnp.broadcast_to(first, (b, 1, first.size)), a], axis=1)
            for first, a in zip(null, (k, v))
        )
        scale = cfg.head_width**-0.5
        if cfg.attention == "cosine":
            q, k, scale = normalised(q), normalised(k), COSINE_SCALE
        else:
            bias = BIAS_GAIN * bias
        logits = jnp.einsum("bqhe,bke->bhqk", q, k, preferred_element_type=jnp.float32)
        look = np.tril(np.ones((n, n + 1), bool), 1)
        logits = jnp.where(look, logits * scale + bias, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
        y = jnp.einsum("bhqk,bke->bqhe", weights, v).reshape(b, n, -1)
        y = _dense(cfg, d, "out", residual_init(cfg.depth))(y)
        return GainNorm(name="norm_out")(y)


class GatedMlp(nn.Module):
    """Two layers around up * silu(gate), without biases (Shazeer 2020)."""

    cfg: Dalle2PytorchConfig

    @nn.compact
    def __call__(self, x):
        """x [b, n, d] -> [b, n, d]."""
        cfg, width = self.cfg, x.shape[-1]
        hidden = int(cfg.mlp_ratio * width)
        up, gate = (_dense(cfg, hidden, name)(x) for name in ("up", "gate"))
        x = up * jax.nn.silu(gate)
        x = GainNorm(name="norm")(x).astype(cfg.dtype) if cfg.normformer else x
        return _dense(cfg, width, "down", residual_init(cfg.depth))(x)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); a body for scan."""

    cfg: Dalle2PytorchConfig

    @nn.compact
    def __call__(self, x, bias):
        """x [b, n, d], bias [h, n, n + 1] -> (x [b, n, d], None)."""
        cfg = self.cfg
        normed = GainNorm(name="norm_1")(x).astype(cfg.dtype)
        x = x + Attention(cfg, name="attention")(normed, bias).astype(x.dtype)
        normed = GainNorm(name="norm_2")(x).astype(cfg.dtype)
        return x + GatedMlp(cfg, name="mlp")(normed), None


class Dalle2PytorchPrior(nn.Module):
    """f(z_noised, t, y) of unCLIP eq. 2, in the space that is sqrt(clip) larger."""

    cfg: Dalle2PytorchConfig

    @nn.compact
    def __call__(self, z_noised, t, text):
        """z_noised float [b, clip], t int [b], text: Text -> float32 [b, clip].

        text.mask tells real states from padding, for which learned vectors stand.
        text.keep [b]: 0 replaces the text and, as guidance does in the original, also
        z_noised by learned vectors; it needs cfg.nulls.

        Raises:
            BadInput: the text's widths are not cfg.clip.
        """
        cfg, b = self.cfg, len(z_noised)
        query = self.param("query", _SMALL, (cfg.clip,))
        pooled = self._tokens("pooled", text.pooled, cfg.text_tokens)
        noised = self._tokens("z_noised", z_noised, cfg.image_tokens)
        if cfg.nulls:
            keep = text.keep.astype(bool)[:, None, None]
            null = self.param("null_pooled", _SMALL, (cfg.text_tokens, cfg.clip))
            pooled = jnp.where(keep, pooled, null)
            noised = jnp.where(keep, noised, self.param("null_z", _SMALL, (cfg.clip,)))
        query = jnp.broadcast_to(query, (b, 1, cfg.clip))
        parts = [self._states(text), pooled, self._time(t), noised, query]
        x = jnp.concatenate([part.astype(cfg.dtype) for part in parts], axis=1)
        x = GainNorm(name="norm_in")(x).astype(cfg.dtype) if cfg.norm_in else x
        bias = nn.Embed(BUCKETS, cfg.heads, name="relative")(buckets(x.shape[1]))
        x = _stack(cfg)(x, bias.transpose(2, 0, 1))[0][:, -1]
        x = GainNorm(by_max=True, name="norm_out")(x) if cfg.norm_out else x
        if cfg.project_out:
            x = nn.Dense(cfg.clip, use_bias=False, name="z_image")(x)
        return x.astype(jnp.float32)

    def _tokens(self, name, x, count):
        """x [b, clip] -> [b, count, clip]; by a dense layer where count is above 1."""
        cfg = self.cfg
        if x.shape[-1] != cfg.clip:
            raise BadInput(
                f"the prior is for embeddings of width {cfg.clip}, {name} has "
                f"{x.shape[-1]}; take the CLIP that it was trained with."
            )
        x = nn.Dense(count * cfg.clip, name=name)(x) if count > 1 else x
        return x.reshape(len(x), count, cfg.clip)

    def _states(self, text):
        """States of the captions [b, context, clip], learned where there are none."""
        cfg, b = self.cfg, len(text.pooled)
        null = self.param("null_states", _SMALL, (cfg.context, cfg.clip))
        if not cfg.states:
            return jnp.broadcast_to(null, (b, *null.shape))
        states, mask = text.states[:, : cfg.context], text.mask.astype(bool)
        if states.shape[-1] != cfg.clip:
            raise BadInput(
                f"the prior needs text states of width {cfg.clip}, these have "
                f"{states.shape[-1]}; take the CLIP that it was trained with."
            )
        mask = mask[:, : cfg.context]
        mask = mask & text.keep.astype(bool)[:, None] if cfg.nulls else mask
        missing = cfg.context - states.shape[1]
        states = jnp.pad(states, ((0, 0), (0, missing), (0, 0)))
        mask = jnp.pad(mask, ((0, 0), (0, missing)))
        return jnp.where(mask[..., None], states, null)

    def _time(self, t):
        """t [b] -> [b, time_tokens, clip]."""
        cfg = self.cfg
        width = cfg.time_tokens * cfg.clip
        if cfg.times:
            x = nn.Embed(cfg.times, width, name="time")(t)
        else:
            x = _sinusoid(t, cfg.clip)
            for name in ("time_1", "time_2"):
                x = nn.silu(nn.Dense(2 * width, name=name)(x))
            x = nn.Dense(width, name="time_3")(x)
        return x.reshape(len(t), cfg.time_tokens, cfg.clip)


_SMALL = nn.initializers.normal(0.02)


def _dense(cfg, width, name, init=nn.linear.default_kernel_init):
    """A dense layer without bias in the compute dtype."""
    return nn.Dense(width, use_bias=False, dtype=cfg.dtype, kernel_init=init, name=name)


def _stack(cfg):
    """The blocks, scanned; every leaf of "layers" has the depth as its first axis."""
    block = recomputed(Block, cfg.remat, prevent_cse=False)
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,
        length=cfg.depth,
        unroll=cfg.depth if cfg.depth <= UNROLLED else 1,
    )(cfg, name="layers")


def _sinusoid(t, width):
    """Sines, then cosines, from frequency 1 to exactly 1e-4: float32 [b, width]."""
    half = width // 2
    step = np.float32(np.log(10_000) / (half - 1))
    angles = t.astype(jnp.float32)[:, None] * np.exp(
        -step * np.arange(half, dtype=np.float32)
    )
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
