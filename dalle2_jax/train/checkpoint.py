"""Checkpoints: atomic by orbax, intact by a fingerprint of every leaf.

orbax commits a checkpoint whole or not at all, but restores a flipped bit without a
word. So each one carries a sum over the bits of every leaf, weighted by position and
independent of sharding, and a restore that does not reproduce it is refused; the newest
intact checkpoint is used instead.
"""

import logging

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from dalle2_jax.errors import Failed

LOG = logging.getLogger("dalle2_jax")
ITEMS = ("state", "data", "meta")


def fingerprints(tree):
    """One uint32 per leaf, by name: changes with any flipped bit and any swap.

    Args:
        tree: arrays of 32-bit types, on any sharding.
    """
    sums = jax.jit(lambda t: jax.tree.map(_fingerprint, t))(tree)
    named = jax.tree_util.tree_flatten_with_path(jax.device_get(sums))[0]
    return {_name(path): int(value) for path, value in named}


class Checkpoints:
    """The checkpoints of one run directory.

    Args:
        folder: where they live; made when absent.
        keep: how many of the newest survive.
    """

    def __init__(self, folder, keep):
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(keep),
            cleanup_tmp_directories=True,
        )
        self.folder = folder
        self.manager = ocp.CheckpointManager(folder, item_names=ITEMS, options=options)

    def save(self, state, position, run):
        """Starts writing a state; a failure shows here, at the next save or at close.

        Args:
            state: TrainState.
            position: global number of the next sample.
            run: JSON-able configuration.

        Raises:
            Failed: the disk is full or the folder cannot be written.
        """
        step = int(state.step)
        if step in self.manager.all_steps():
            return
        meta = {"run": run, "fingerprints": fingerprints(state)}
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=ocp.args.JsonSave({"position": position}),
            meta=ocp.args.JsonSave(meta),
        )
        saved = self._guarded(lambda: self.manager.save(step, args=args, force=True))
        if not saved:
            raise Failed(f"{self.folder}: checkpoint {step} was not accepted by orbax.")

    def restore(self, like):
        """The newest intact checkpoint as (state, position), or None without any.

        Args:
            like: TrainState of ShapeDtypeStructs with shardings.

        Raises:
            Failed: there are checkpoints and none of them is intact.
        """
        steps = sorted(self.manager.all_steps(), reverse=True)
        for step in steps:
            problem, found = self._read(step, like)
            if not problem:
                return found
            logging.error(
                "%s: checkpoint %d is damaged: %s", self.folder, step, problem
            )
        if steps:
            raise Failed(
                f"{self.folder}: none of the checkpoints {steps} is intact; "
                "restore the folder from a copy or start in a new --workdir."
            )
        return None

    def close(self):
        """Waits for writing to end; raises Failed if it did not go well."""
        self._guarded(self.manager.wait_until_finished)
        self.manager.close()

    def _read(self, step, like):
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(like),
            data=ocp.args.JsonRestore(),
            meta=ocp.args.JsonRestore(),
        )
        try:
            found = self.manager.restore(step, args=args)
        except Exception as error:  # orbax raises many kinds for damaged files
            return f"{type(error).__name__}: {str(error).splitlines()[0][:200]}", None
        now, then = fingerprints(found.state), found.meta["fingerprints"]
        changed = [name for name in then if now.get(name) != then[name]]
        if changed:
            return f"{changed[0]} is not what was written", None
        return None, (found.state, found.data["position"])

    def _guarded(self, call):
        try:
            return call()
        except Exception as error:
            raise Failed(
                f"{self.folder}: the checkpoint could not be written "
                f"({_reason(error)}); free space or mend the "
                "permissions and run the same command again: it resumes from the "
                "last one that was committed."
            ) from error


def _reason(error):
    """The last clause of the first line of an error: what the system said."""
    return str(error).split("\n")[0].rsplit(": ", 1)[-1][:120]


def _fingerprint(x):
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis, size in enumerate(x.shape):
        index = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
        place = place * jnp.uint32(size) + index
    mixed = (bits ^ (bits >> 15)) * (2 * place + jnp.uint32(1))
    return jnp.sum(mixed, dtype=jnp.uint32)


def _name(path):
    return jax.tree_util.keystr(path, simple=True, separator="/")
