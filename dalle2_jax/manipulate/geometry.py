"""unCLIP §3: walks between vectors: spherical interpolation and weighted directions."""

import jax.numpy as jnp

from dalle2_jax.errors import BadInput
from dalle2_jax.layers.embeddings import normalised

PARALLEL = 1e-6  # sine of an angle below which a straight line is as good


def slerp(a, b, theta):
    """Spherical interpolation: a at theta = 0, b at 1 (unCLIP §3.2).

    a, b: float [..., d], of any lengths: between vectors of norm 1 the result has norm
    1, between independent normal ones it is as long as they are. theta: a number or an
    array that broadcasts against [..., 1].
    """
    cosine = jnp.sum(normalised(a) * normalised(b), -1, keepdims=True)
    angle = jnp.arccos(jnp.clip(cosine, -1, 1))
    sine = jnp.sin(angle)
    flat = sine < PARALLEL
    sine = jnp.where(flat, 1, sine)
    of_a = jnp.where(flat, 1 - theta, jnp.sin((1 - theta) * angle) / sine)
    of_b = jnp.where(flat, theta, jnp.sin(theta * angle) / sine)
    return of_a * a + of_b * b


def slerp_noise(a, b, theta):
    """`slerp` of pictures of noise [..., y, x, c], each taken as one long vector.

    theta: a number, or an array [...] of the leading shape.
    """
    flat = (*a.shape[:-3], -1)
    theta = jnp.asarray(theta, jnp.float32)[..., None]
    return slerp(a.reshape(flat), b.reshape(flat), theta).reshape(a.shape)


def mean_direction(z, weights):
    """The direction of a weighted sum: z [n, d] and n weights -> unit [d].

    Raises:
        BadInput: the weights are not n, or the sum has no direction.
    """
    weights = jnp.asarray(weights, jnp.float32)
    if weights.shape != (len(z),):
        raise BadInput(
            f"{len(z)} images and captions need as many weights, not {weights.size}."
        )
    total = weights @ z
    if not float(jnp.linalg.norm(total)) > PARALLEL:
        raise BadInput("the weighted images and captions cancel out; change a weight.")
    return normalised(total)
