"""unCLIP §2: CLIP's text tower, a causal transformer over tokens."""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dalle2_jax.layers.attention import causal
from dalle2_jax.layers.transformer import LayerNorm, TransformerConfig, transformer


@dataclasses.dataclass(frozen=True)
class TextTowerConfig:
    """Sizes of the text tower.

    pool: the caption's vector stands at the largest id ("argmax", as OpenAI's) or at
    the first `end_id` ("end").
    """

    vocab: int
    context: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    activation: str = "quick_gelu"
    pool: str = "argmax"
    end_id: int = -1
    remat: bool = False

    def __post_init__(self):
        assert self.pool in ("argmax", "end"), "pool is argmax or end"
        assert self.pool == "argmax" or self.end_id >= 0, "pool=end needs end_id"


class TextFeatures(NamedTuple):
    """pooled [b, clip], not normalised; states [b, n, width] after the final norm."""

    pooled: jax.Array
    states: jax.Array


class TextTower(nn.Module):
    """clip: width of the joint space."""

    cfg: TextTowerConfig
    clip: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, tokens, mask=None, ends=None):
        """tokens int32 [b, n], n <= context; mask bool [b, n] or None -> TextFeatures.

        ends: int32 [b], where each caption ends; None: where `end_positions` says.
        Without a mask padding is seen only by what stands behind it, hence by no
        caption.
        """
        cfg = self.cfg
        x = nn.Embed(cfg.vocab, cfg.width, name="tokens", embedding_init=_SMALL)(tokens)
        shape = (cfg.context, cfg.width)
        x = x + self.param("positions", _SMALL, shape)[: tokens.shape[1]]
        look = causal(tokens.shape[1])
        look = look if mask is None else look & mask[:, None, None].astype(bool)
        x = transformer(_stack(cfg, self.dtype), x, look)
        states = LayerNorm(name="norm_out")(x)
        ends = end_positions(cfg, tokens) if ends is None else ends
        pooled = jnp.take_along_axis(states, ends[:, None, None], axis=1)[:, 0]
        pooled = nn.Dense(self.clip, use_bias=False, name="projection")(pooled)
        return TextFeatures(pooled, states)


def end_positions(cfg, tokens):
    """Where each caption ends: int32 [b]."""
    marks = tokens if cfg.pool == "argmax" else tokens == cfg.end_id
    return jnp.argmax(marks, axis=1).astype(jnp.int32)


_SMALL = nn.initializers.normal(0.02)


def _stack(cfg, dtype):
    names = ("width", "depth", "heads", "mlp_ratio", "activation", "remat")
    return TransformerConfig(*(getattr(cfg, name) for name in names), dtype=dtype)
