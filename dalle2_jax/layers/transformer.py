"""A pre-norm transformer stack: one block, scanned over its depth."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from dalle2_jax.layers.attention import SelfAttention, residual_init
from dalle2_jax.layers.place import along_batch, placed
from dalle2_jax.layers.recompute import recomputed

ACTIVATIONS = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "silu": jax.nn.silu,
}
UNROLLED = 4  # stacks up to this depth become straight code: no loop on small machines


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a stack. activation: "gelu" is the exact one."""

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        assert self.width % self.heads == 0, "heads must divide width"
        assert self.activation in ACTIVATIONS, f"activation is none of {[*ACTIVATIONS]}"


class LayerNorm(nn.Module):
    """LayerNorm over the last axis, epsilon 1e-5, float32 inside and out."""

    @nn.compact
    def __call__(self, x):
        """x [..., d] of any float dtype -> float32 [..., d]."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        x = x.astype(jnp.float32)
        x = x - x.mean(-1, keepdims=True)
        variance = jnp.mean(x * x, -1, keepdims=True)
        return x * jax.lax.rsqrt(variance + 1e-5) * scale + bias


class Mlp(nn.Module):
    """Two dense layers around an activation."""

    cfg: TransformerConfig

    @nn.compact
    def __call__(self, x):
        """x [b, n, d] -> [b, n, d]."""
        cfg = self.cfg
        hidden = round(cfg.width * cfg.mlp_ratio)
        x = nn.Dense(hidden, dtype=cfg.dtype, name="up")(x)
        x = ACTIVATIONS[cfg.activation](x)
        init = residual_init(cfg.depth)
        return nn.Dense(cfg.width, dtype=cfg.dtype, kernel_init=init, name="down")(x)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); a body for scan."""

    cfg: TransformerConfig

    @nn.compact
    def __call__(self, x, mask):
        """x [b, n, d], mask or None -> (x [b, n, d], None)."""
        cfg = self.cfg
        attention = SelfAttention(cfg.heads, cfg.dtype, cfg.depth, name="attention")
        x = x + attention(LayerNorm(name="norm_1")(x).astype(cfg.dtype), mask)
        mlp = Mlp(cfg, name="mlp")
        x = x + mlp(LayerNorm(name="norm_2")(x).astype(cfg.dtype))
        return along_batch(x), None


def transformer(cfg, x, mask=None):
    """The stack, as submodule "layers" of the module that calls this.

    x [b, n, d]; mask broadcasts to [b, h, n, n]. Every leaf of "layers" has the depth
    as its first axis. Returns [b, n, d] in the compute dtype, without a final norm.
    """
    block = placed(Block, cfg.dtype)
    block = recomputed(block, cfg.remat, prevent_cse=False)
    stack = nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,
        length=cfg.depth,
        unroll=cfg.depth if cfg.depth <= UNROLLED else 1,
    )
    x = along_batch(x.astype(cfg.dtype))
    return stack(cfg, name="layers")(x, mask)[0]
