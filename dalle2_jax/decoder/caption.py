"""unCLIP §2.1: the decoder's own caption transformer, kept from GLIDE."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from dalle2_jax.layers.transformer import LayerNorm, TransformerConfig, transformer


@dataclasses.dataclass(frozen=True)
class CaptionConfig:
    """Sizes of the caption transformer (unCLIP Table 3, "text encoder")."""

    vocab: int
    context: int = 256
    width: int = 2048
    depth: int = 24
    heads: int = 32
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    remat: bool = False
    dtype: str = "float32"


class CaptionTransformer(nn.Module):
    """Tokens see each other; padding is a learned vector per position (GLIDE)."""

    cfg: CaptionConfig

    @nn.compact
    def __call__(self, tokens, mask):
        """tokens int32 [b, n], mask bool [b, n] -> float32 [b, n, width]; n = context.

        A caption whose mask is all False is the learned "no caption".
        """
        cfg = self.cfg
        shape = (cfg.context, cfg.width)
        x = nn.Embed(cfg.vocab, cfg.width, name="tokens", embedding_init=_SMALL)(tokens)
        x = x + self.param("positions", _SMALL, shape)
        x = jnp.where(mask[..., None], x, self.param("padding", _SMALL, shape))
        names = ("width", "depth", "heads", "mlp_ratio", "activation", "remat", "dtype")
        stack = TransformerConfig(*(getattr(cfg, name) for name in names))
        return LayerNorm(name="norm_out")(transformer(stack, x))


_SMALL = nn.initializers.normal(0.02)
