"""Gradients of a batch that does not fit at once: microbatches, one after the other."""

import jax
import jax.numpy as jnp

from dalle2_jax.errors import BadInput
from dalle2_jax.shard.rules import shardings


def accumulated(loss, count, mesh):
    """The gradient of the whole batch, taken over `count` microbatches.

    What the network is shown is drawn for the whole batch, so that the result is the
    large batch's up to rounding; dropout's masks alone are drawn per microbatch. Row i
    of the batch goes to microbatch i % count, which leaves it on its device. CPUs run
    the microbatches unrolled: there, gradients of convolutions inside a scan are about
    fifty times slower.

    Args:
        loss: Loss whose scalar is a mean over examples.
        count: microbatches.
        mesh: the run's mesh.

    Returns:
        (params, frozen, batch, key) -> ((value, metrics), gradient).
    """
    grad = jax.value_and_grad(loss.score, has_aux=True)
    walk = _unrolled if mesh.devices.flat[0].platform == "cpu" else _scanned

    def whole(params, frozen, batch, key):
        _check(len(jax.tree.leaves(batch)[0]), count, mesh)
        shown = jax.lax.stop_gradient(loss.prepare(frozen, batch, key))
        parts = jax.tree.map(
            lambda x: x.reshape(len(x) // count, count, *x.shape[1:]), shown
        )

        def one(i, part):
            return grad(params, part, jax.random.fold_in(key, i))

        (values, metrics), grads = walk(one, parts, count, params, mesh)
        return (values.mean(), jax.tree.map(_merged, metrics)), grads

    return whole


def _unrolled(one, parts, count, params, mesh):
    found = [one(i, jax.tree.map(lambda x, i=i: x[:, i], parts)) for i in range(count)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *[seen for seen, _ in found])
    return stacked, jax.tree.map(lambda *g: sum(g) / count, *[g for _, g in found])


def _scanned(one, parts, count, params, mesh):
    """Sums of gradients lie as the parameters do: each part is reduced as it comes."""
    layout = shardings(params, mesh)

    def placed(tree):
        return jax.lax.with_sharding_constraint(tree, layout)

    def step(total, given):
        seen, grads = one(*given)
        return placed(jax.tree.map(jnp.add, total, grads)), seen

    zeros = placed(jax.tree.map(jnp.zeros_like, params))
    parts = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), parts)
    total, seen = jax.lax.scan(step, zeros, (jnp.arange(count), parts))
    return seen, jax.tree.map(lambda g: g / count, total)


def _merged(x):
    """Means of scalars; values per example in the order of the batch."""
    return x.mean(0) if x.ndim == 1 else jnp.moveaxis(x, 0, 1).reshape(-1)


def _check(size, count, mesh):
    """Raises BadInput where the batch is not `count` equal parts on every device."""
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    if size % (count * devices):
        raise BadInput(
            f"config.batch = {size} is not a multiple of config.accumulate = {count} "
            f"times {devices} devices; change one of them."
        )
