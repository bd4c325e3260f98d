"""unCLIP §2.2: the diffusion prior, a causal transformer that predicts z_i (eq. 2)."""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dalle2_jax.errors import BadInput
from dalle2_jax.layers.attention import causal
from dalle2_jax.layers.embeddings import TimeEmbedding
from dalle2_jax.layers.transformer import LayerNorm, TransformerConfig, transformer


@dataclasses.dataclass(frozen=True)
class PriorConfig:
    """Sizes of the diffusion prior (unCLIP Table 3).

    clip: width of z_i. context, text_width: number and width of the caption's states;
    a context of 0 hears the pooled text alone, which embeddings without captions have.
    null: "learned" vectors stand for a dropped caption, or ("empty", as Karlo) the
    caller gives the features of the empty caption. scale: what z_i is multiplied with
    in front of the diffusion, 0 = sqrt(clip); the paper has 17.2 for 1024. whiten: mean
    and standard deviation of every dimension, kept as parameters, take its place. The
    rest serves published relatives: pooled_width (0 = clip), time_hidden (0 = width),
    time_activation, norm_in over the sequence, norm_pooled over the pooled text.
    """

    clip: int
    width: int = 2048
    depth: int = 24
    heads: int = 32
    context: int = 256
    text_width: int = 1024
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    null: str = "learned"
    scale: float = 0.0
    whiten: bool = False
    pooled_width: int = 0
    time_hidden: int = 0
    time_activation: str = "silu"
    norm_in: bool = False
    norm_pooled: bool = False
    causal: bool = True
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        assert self.null in ("learned", "empty"), "null is learned or empty"
        assert self.width % self.heads == 0, "heads must divide width"


class Text(NamedTuple):
    """What the prior knows of a caption.

    pooled [b, clip]; states [b, n, text_width]; mask bool [b, n], True = a real token;
    keep [b], 1 = use the text, 0 = the learned null. keep is None where null="empty".
    """

    pooled: jax.Array
    states: jax.Array
    mask: jax.Array
    keep: jax.Array | None = None


def nothing(text):
    """The same batch without its captions."""
    return text._replace(keep=jnp.zeros(len(text.pooled), jnp.float32))


def example(cfg, batch=1):
    """Shapes of a Prior's arguments, for `init_params(Prior(cfg), seed, *...)`."""

    def shape(*sizes, dtype=jnp.float32):
        return jax.ShapeDtypeStruct((batch, *sizes), dtype)

    text = Text(
        shape(cfg.pooled_width or cfg.clip),
        shape(cfg.context, cfg.text_width),
        shape(cfg.context, dtype=jnp.bool_),
        shape() if cfg.null == "learned" else None,
    )
    return shape(cfg.clip), shape(dtype=jnp.int32), text


def to_scaled(cfg, params, z):
    """CLIP's space -> the diffused space, about unit variance. z [..., clip]."""
    if cfg.whiten:
        return (z - params["clip_mean"]) / params["clip_std"]
    return z * (cfg.scale or cfg.clip**0.5)


def from_scaled(cfg, params, z):
    """The inverse of to_scaled."""
    if cfg.whiten:
        return z * params["clip_std"] + params["clip_mean"]
    return z / (cfg.scale or cfg.clip**0.5)


class Prior(nn.Module):
    """f(z_noised, t, y) of unCLIP eq. 2, in the scaled space."""

    cfg: PriorConfig

    @nn.compact
    def __call__(self, z_noised, t, text):
        """z_noised float [b, clip], t [b], text: Text -> predicted z_i [b, clip].

        Raises:
            BadInput: text.keep does not go with cfg.null.
        """
        cfg = self.cfg
        if (text.keep is None) != (cfg.null == "empty"):
            raise BadInput(
                f"The prior's null is {cfg.null!r}: Text.keep must be "
                f"{'None' if cfg.null == 'empty' else 'given'}."
            )
        if cfg.whiten:  # kept beside the weights; read by to_scaled and from_scaled
            self.param("clip_mean", nn.initializers.zeros, (cfg.clip,))
            self.param("clip_std", nn.initializers.ones, (cfg.clip,))
        states, pooled, mask = self._text(text)
        hidden = cfg.time_hidden or cfg.width
        time = TimeEmbedding(
            cfg.width, hidden, cfg.width, cfg.time_activation, name="time"
        )(t)
        noised = nn.Dense(cfg.width, name="z_noised")(z_noised)
        query = self.param("query", _SMALL, (cfg.width,))
        query = jnp.broadcast_to(query, noised.shape)
        rest = jnp.stack([pooled, time, noised, query], axis=1)  # [b, 4, width]
        x = jnp.concatenate([states, rest], axis=1)
        x = x + self.param("positions", _SMALL, x.shape[1:])
        x = LayerNorm(name="norm_in")(x) if cfg.norm_in else x
        seen = jnp.concatenate([mask, jnp.ones((len(x), 4), bool)], axis=1)
        look = seen[:, None, None]
        look = causal(x.shape[1]) & look if cfg.causal else look
        x = transformer(_stack(cfg), x, look)
        self.sow("intermediates", "sequence", x)
        x = LayerNorm(name="norm_out")(x[:, -1])
        return nn.Dense(cfg.clip, name="z_image")(x)

    def _text(self, text):
        """Text -> states [b, n, width], pooled [b, width], mask bool [b, n]."""
        cfg = self.cfg
        pooled = LayerNorm(name="norm_pooled")(text.pooled) if cfg.norm_pooled else None
        pooled = text.pooled if pooled is None else pooled
        pooled = nn.Dense(cfg.width, name="pooled")(pooled)
        states, mask = self._states(text)
        if cfg.null == "empty":
            return states, pooled, mask
        keep = text.keep.astype(bool)[:, None]
        null_pooled = self.param("null_pooled", _SMALL, (cfg.width,))
        return states, jnp.where(keep, pooled, null_pooled), mask

    def _states(self, text):
        """Text -> states [b, n, width], the null's where dropped; mask bool [b, n]."""
        cfg, mask = self.cfg, text.mask.astype(bool)
        if not cfg.context:
            return jnp.zeros((len(mask), 0, cfg.width)), mask[:, :0]
        states = nn.Dense(cfg.width, name="states")(text.states)
        if cfg.null == "empty":
            return states, mask
        keep = text.keep.astype(bool)[:, None]
        null_states = self.param("null_states", _SMALL, (cfg.context, cfg.width))
        return jnp.where(keep[..., None], states, null_states), mask | ~keep


_SMALL = nn.initializers.normal(0.02)


def _stack(cfg):
    names = ("width", "depth", "heads", "mlp_ratio", "activation", "remat", "dtype")
    return TransformerConfig(*(getattr(cfg, name) for name in names))
