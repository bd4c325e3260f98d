"""Attention, and the letters of every einsum.

b batch, q query tokens, k key tokens, n tokens, h heads, e width of a head, d width,
f hidden width, y x rows and columns, c channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


def attend(q, k, v, mask=None):
    """Softmax attention with float32 logits (Vaswani et al. 2017, eq. 1).

    q [b, q, h, e], k and v [b, k, h, e]; mask broadcasts to [b, h, q, k], True = look.
    Returns [b, q, h, e] in v's dtype. A row without any True attends to all keys
    evenly.
    """
    logits = jnp.einsum("bqhe,bkhe->bhqk", q, k, preferred_element_type=jnp.float32)
    logits = logits * q.shape[-1] ** -0.5
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    return jnp.einsum("bhqk,bkhe->bqhe", weights, v)


def causal(tokens):
    """Mask [1, 1, tokens, tokens]: a token looks at itself and the ones before it."""
    return jnp.tril(jnp.ones((tokens, tokens), bool))[None, None]


def heads_of(x, heads):
    """[b, n, h * e] -> [b, n, h, e]."""
    return x.reshape(*x.shape[:-1], heads, -1)


class SelfAttention(nn.Module):
    """Multi-head self-attention of a sequence; biases in all four projections.

    heads: number of heads, must divide the width. dtype: compute dtype.
    depth: the stack it stands in; scales the first values of `out`.
    """

    heads: int
    dtype: str = "float32"
    depth: int = 0

    @nn.compact
    def __call__(self, x, mask=None):
        """x [b, n, d], mask broadcasting to [b, h, n, n] or None -> [b, n, d]."""
        width = x.shape[-1]
        q, k, v = (
            heads_of(nn.Dense(width, dtype=self.dtype, name=name)(x), self.heads)
            for name in "qkv"
        )
        y = attend(q, k, v, mask).reshape(x.shape)
        init = residual_init(self.depth)
        return nn.Dense(width, dtype=self.dtype, kernel_init=init, name="out")(y)


def residual_init(depth):
    """Fan-in normal, smaller by sqrt(2 depth) for the two branches of each block."""
    gain = 1 / (2 * depth) if depth else 1.0
    return nn.initializers.variance_scaling(gain, "fan_in", "normal")
