"""unCLIP §2.2: the autoregressive prior, a causal transformer over the codes of z_i.

The paper leaves open how its 256 caption tokens meet a decoder of 384 positions. Here
the caption (CLIP's states, as for the diffusion prior) passes through the text encoder,
which looks both ways, and its output stands as keys and values in front of every layer
of the decoder, a prefix without positions of its own. The decoder's sequence is
[z_t, dot, code 0, ..., code n-2]: 320 of the 384 positions of Table 3. The dot product
z_i . z_t says something about the caption: it is dropped together with it.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from dalle2_jax.layers.attention import attend, heads_of, residual_init
from dalle2_jax.layers.place import along_batch, placed
from dalle2_jax.layers.recompute import recomputed
from dalle2_jax.layers.transformer import (
    UNROLLED,
    LayerNorm,
    Mlp,
    TransformerConfig,
    transformer,
)
from dalle2_jax.prior.codes import Codes, draw_dots, fit_codes, fit_dots
from dalle2_jax.prior.diffusion import Text, nothing

DOT = 2**31 - 1  # folded into a sample's key for the dot product; no code has it


@dataclasses.dataclass(frozen=True)
class AutoregressiveConfig:
    """Sizes of the autoregressive prior (unCLIP Table 3).

    clip: width of z_i. codes, buckets: PCA components and the buckets of each. dots:
    buckets of z_i . z_t. context, text_width: number and width of the caption's states.
    """

    clip: int
    codes: int = 319
    buckets: int = 1024
    dots: int = 1024
    context: int = 256
    text_width: int = 1024
    encoder: TransformerConfig = TransformerConfig(2048, 24, 32)
    decoder: TransformerConfig = TransformerConfig(1664, 24, 26)

    def __post_init__(self):
        assert self.codes <= self.clip, "codes must not exceed clip"
        assert self.context > 0, "context must be positive"
        assert min(self.buckets, self.dots) > 1, "buckets and dots must be at least 2"


def example(cfg, batch=1):
    """Shapes of an Autoregressive's arguments, for `init_params`."""

    def shape(*sizes, dtype=jnp.float32):
        return jax.ShapeDtypeStruct((batch, *sizes), dtype)

    text = Text(
        shape(cfg.clip),
        shape(cfg.context, cfg.text_width),
        shape(cfg.context, dtype=jnp.bool_),
        shape(),
    )
    return text, shape(dtype=jnp.int32), shape(cfg.codes, dtype=jnp.int32)


def with_codes(cfg, params, z_image, z_text):
    """`params` with the tables of codes fitted to unit embeddings [m, clip]."""
    codes = fit_codes(z_image, cfg.codes, cfg.buckets)
    tables = {f"codes_{name}": table for name, table in codes._asdict().items()}
    return {**params, **tables, "dot_edges": fit_dots(z_image, z_text, cfg.dots)}


def codes_of(params):
    """The Codes that a prior's parameters hold."""
    return Codes(*(params[f"codes_{name}"] for name in Codes._fields))


def draw_codes(params, text, keys, cfg, guidance=1.0, temperature=1.0, percentile=50.0):
    """Codes of z_i, one after another, from a key/value cache.

    Args:
        params: of Autoregressive(cfg).
        text: Text [b, ...].
        keys: [b]; sample i depends on its own caption and key.
        cfg: AutoregressiveConfig.
        guidance: logits = without + guidance * (with text - without); 1: none.
        temperature: logits are divided by it; 0 takes the likeliest code.
        percentile: the dot product is drawn from above it.

    Returns:
        int32 [b, codes].
    """
    guided = guidance != 1
    dot = draw_dots(_fold(keys, DOT), cfg.dots, percentile)
    if guided:
        text, dot = jax.tree.map(_join, (text, dot), (nothing(text), dot))

    def step(method, *arguments):
        net = Autoregressive(cfg)
        return net.apply({"params": params}, *arguments, method=method)

    def choose(logits, i):
        if guided:
            with_text, without = jnp.split(logits, 2)
            logits = without + guidance * (with_text - without)
        if isinstance(temperature, int | float) and temperature == 0:
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        return jax.vmap(jax.random.categorical)(_fold(keys, i), logits / temperature)

    def body(carry, i):
        token, cache = carry
        given = _join(token, token) if guided else token
        logits, cache = step("follow", given, i, cache, mask)
        token = choose(logits, i + 1)
        return (token, cache), token

    logits, cache, mask = step("begin", text, dot)
    first = choose(logits, 0)
    rest = jax.lax.scan(body, (first, cache), jnp.arange(cfg.codes - 1))[1]
    return jnp.concatenate([first[None], rest]).T


class TextEncoder(nn.Module):
    """The caption's states -> the prefix of the decoder."""

    cfg: AutoregressiveConfig

    @nn.compact
    def __call__(self, text):
        """Text -> prefix [b, n, decoder width], mask bool [b, n]."""
        cfg, keep = self.cfg, text.keep.astype(bool)[:, None]
        shape = (cfg.context, cfg.encoder.width)
        x = nn.Dense(cfg.encoder.width, name="states")(text.states)
        x = jnp.where(keep[..., None], x, self.param("null_states", _SMALL, shape))
        x = x + self.param("positions", _SMALL, shape)
        mask = text.mask.astype(bool) | ~keep
        x = transformer(cfg.encoder, x, mask[:, None, None])
        x = LayerNorm(name="norm_out")(x)
        return nn.Dense(cfg.decoder.width, name="prefix")(x), mask


class CachedBlock(nn.Module):
    """The block of layers/transformer.py with a prefix and a memory; for scan."""

    cfg: TransformerConfig

    @nn.compact
    def __call__(self, x, cache, prefix, place, look):
        """One layer over m new tokens.

        Args:
            x: [b, m, d].
            cache: keys and values [b, p + n, h, e] of what came before; None: the new
                tokens are all there is.
            prefix: [b, p, d], in front of the new tokens, or None: it is in the cache.
            place: where in the cache the new keys go.
            look: bool [b, 1, m, p + n].

        Returns:
            x [b, m, d] and the cache with the new keys and values.
        """
        cfg = self.cfg
        norm = LayerNorm(name="norm_1")(x).astype(cfg.dtype)
        y, cache = CachedAttention(cfg, name="attention")(
            norm, cache, prefix, place, look
        )
        x = x + y
        norm = LayerNorm(name="norm_2")(x).astype(cfg.dtype)
        return along_batch(x + Mlp(cfg, name="mlp")(norm)), cache


class CachedAttention(nn.Module):
    """Self-attention that also looks at a prefix and at remembered keys and values."""

    cfg: TransformerConfig

    @nn.compact
    def __call__(self, x, cache, prefix, place, look):
        """As CachedBlock."""
        cfg = self.cfg

        def dense(name, x):
            return nn.Dense(cfg.width, dtype=cfg.dtype, name=name)(x)

        every = x if prefix is None else jnp.concatenate([prefix, x], axis=1)
        q, k, v = (
            heads_of(dense(name, given), cfg.heads)
            for name, given in zip("qkv", (x, every, every))
        )
        if cache is not None:
            put = jax.lax.dynamic_update_slice_in_dim
            k, v = (put(old, new, place, 1) for old, new in zip(cache, (k, v)))
            cache = k, v
        y = attend(q, k, v, look).reshape(x.shape)
        init = residual_init(cfg.depth)
        out = nn.Dense(cfg.width, dtype=cfg.dtype, kernel_init=init, name="out")
        return out(y), cache


class Autoregressive(nn.Module):
    """P(codes | y): all at once in training, one by one with a cache in sampling."""

    cfg: AutoregressiveConfig

    def setup(self):
        cfg, stack = self.cfg, self.cfg.decoder
        zeros, width = nn.initializers.zeros, stack.width
        self.encoder = TextEncoder(cfg)
        self.pooled = nn.Dense(width)
        self.null_pooled = self.param("null_pooled", _SMALL, (width,))
        self.dots = nn.Embed(cfg.dots + 1, width, embedding_init=_SMALL)
        self.tokens = nn.Embed(cfg.buckets, width, embedding_init=_SMALL)
        self.positions = self.param("positions", _SMALL, (cfg.codes + 1, width))
        block = placed(CachedBlock, stack.dtype)
        block = recomputed(block, stack.remat, prevent_cse=False)
        self.layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
            length=stack.depth,
            unroll=stack.depth if stack.depth <= UNROLLED else 1,
        )(stack)
        self.norm_out = LayerNorm()
        self.logits = nn.Dense(cfg.buckets)
        # Kept beside the weights, not trained: see with_codes and codes_of.
        self.param("codes_mean", zeros, (cfg.clip,))
        self.param("codes_axes", zeros, (cfg.codes, cfg.clip))
        self.param("codes_centres", zeros, (cfg.codes, cfg.buckets))
        self.param("codes_share", zeros, (cfg.codes,))
        self.param("dot_edges", zeros, (cfg.dots - 1,))

    def __call__(self, text, dot, codes):
        """Text, dot int32 [b], codes int32 [b, n] -> logits float32 [b, n, buckets]."""
        prefix, mask = self.encoder(text)
        given = self.tokens(codes[:, :-1])
        x = jnp.concatenate([self._start(text, dot), given], axis=1) + self.positions
        look = self._look(mask, jnp.arange(x.shape[1]))
        return self._read(self._run(x, None, prefix, 0, look)[0][:, 1:])

    def begin(self, text, dot):
        """Text, dot int32 [b] -> logits of code 0 [b, buckets], cache, prefix mask."""
        prefix, mask = self.encoder(text)
        x = self._start(text, dot) + self.positions[:2]
        stack = self.cfg.decoder
        length = mask.shape[1] + len(self.positions)
        shape = (stack.depth, len(x), length, stack.heads, stack.width // stack.heads)
        empty = jnp.zeros(shape, stack.dtype)
        look = self._look(mask, jnp.arange(2))
        x, cache = self._run(x, (empty, empty), prefix, 0, look)
        return self._read(x[:, 1]), cache, mask

    def follow(self, token, i, cache, mask):
        """Code i, int32 [b] -> logits of code i + 1 [b, buckets], cache."""
        x = (self.tokens(token) + jnp.take(self.positions, i + 2, axis=0))[:, None]
        look = self._look(mask, i[None] + 2)
        x, cache = self._run(x, cache, None, mask.shape[1] + i + 2, look)
        return self._read(x[:, 0]), cache

    def _start(self, text, dot):
        """The two tokens in front of the codes: [b, 2, width]."""
        keep = text.keep.astype(bool)
        pooled = jnp.where(keep[:, None], self.pooled(text.pooled), self.null_pooled)
        dot = self.dots(jnp.where(keep, dot, self.cfg.dots))
        return jnp.stack([pooled, dot], axis=1)

    def _look(self, mask, places):
        """What tokens at `places` [m] see: bool [b, 1, m, p + n]."""
        own = jnp.arange(len(self.positions)) <= places[:, None]
        before = jnp.broadcast_to(
            mask[:, None], (len(mask), len(places), mask.shape[1])
        )
        own = jnp.broadcast_to(own, (len(mask), *own.shape))
        return jnp.concatenate([before, own], axis=-1)[:, None]

    def _run(self, x, cache, prefix, place, look):
        dtype = self.cfg.decoder.dtype
        prefix = None if prefix is None else prefix.astype(dtype)
        return self.layers(x.astype(dtype), cache, prefix, place, look)

    def _read(self, x):
        return self.logits(self.norm_out(x))


def code_loss(logits, codes):
    """Cross-entropy: logits [b, n, buckets], codes int32 [b, n] -> nats [b, n]."""
    chances = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.take_along_axis(chances, codes[..., None], axis=-1)[..., 0]


_SMALL = nn.initializers.normal(0.02)


def _fold(keys, number):
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def _join(a, b):
    return jnp.concatenate([a, b])
