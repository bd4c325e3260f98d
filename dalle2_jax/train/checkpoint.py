"""Checkpoints: atomic by orbax, intact by a fingerprint of every leaf.

checkpoints/<step>/ holds the items `state` (all of a state but its EMA), `ema`, `data`
(where the data goes on) and `meta` (configuration, versions, fingerprints), and
`files.json`, a digest of every file, committed with them. Two files that orbax writes
with the commit itself are listed in `commit.json` as soon as it is done.

orbax commits a checkpoint whole or not at all, but restores a flipped bit without a
word. So a restore that does not reproduce the fingerprints is refused, on every process
at once, and the newest intact checkpoint is used; damaged ones go to `damaged/`.
"""

import hashlib
import json
import logging
import os
import shutil
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from dalle2_jax.components import write_json
from dalle2_jax.errors import Failed
from dalle2_jax.shard.processes import barrier, is_first
from dalle2_jax.train.fingerprint import digest, fingerprints, name_of

LOG = logging.getLogger("dalle2_jax")
ITEMS = ("state", "ema", "data", "meta")
LAYOUT = 2
PACKAGES = ("dalle2_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
SEAL = "files.json"
COMMIT = "commit.json"
BY_THE_COMMIT = ("commit_success.txt", "_CHECKPOINT_METADATA")
UNSEALED = (SEAL, COMMIT, *BY_THE_COMMIT)
DELETED = "deleted"


class Checkpoints:
    """The checkpoints of one run directory. Every process calls every method.

    Args:
        folder: where they live; made when absent.
        keep: how many of the newest survive.
        every: those of steps that are a multiple of it survive too; 0: none.
    """

    def __init__(self, folder, keep, every=0):
        self.folder = Path(folder).resolve()  # orbax takes no relative paths
        policies = [ocp.checkpoint_managers.LatestN(keep)]
        if every:
            policies.append(ocp.checkpoint_managers.EveryNSteps(every))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,
            todelete_subdir=DELETED,  # a rename: no half of a checkpoint ever stays
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )
        self.manager = ocp.CheckpointManager(
            self.folder, item_names=ITEMS, options=options
        )
        self._tidy()

    def save(self, state, position, run, data=None):
        """Starts writing a state; a failure shows here, at the next save or at close.

        The arrays are copied before it returns: the next step may take their memory.

        Args:
            state: NamedTuple of trees of arrays, with `step` and `ema` among them.
            position: JSON-able place from which the data goes on.
            run: JSON-able configuration.
            data: JSON-able, what is known of the data that it is a position in.

        Raises:
            Failed: the disk is full or the folder cannot be written.
        """
        step = int(state.step)
        if step in self.manager.all_steps():
            return
        leaves, place = named(state), {"position": position}
        meta = {
            "layout": LAYOUT,
            "run": run,
            "versions": {name: version(name) for name in PACKAGES},
            "leaves": fingerprints(leaves),
            "data": data,
        }
        args = ocp.args.Composite(
            **{k: ocp.args.StandardSave(v) for k, v in items(leaves).items()},
            data=ocp.args.JsonSave(place),
            meta=ocp.args.JsonSave({**meta, "seal": digest([meta, place])}),
        )
        saved = self._guarded(lambda: self.manager.save(step, args=args, force=True))
        if not saved:
            raise Failed(f"{self.folder}: checkpoint {step} was not accepted by orbax.")
        self._tidy()

    def restore(self, like):
        """The newest intact checkpoint as (state, position), or None without any.

        Args:
            like: the state's NamedTuple of ShapeDtypeStructs with shardings; a leaf of
                another dtype is converted once its fingerprint has been compared.

        Raises:
            Failed: there are checkpoints and none of them is intact.
        """
        problems = {}
        for step in sorted(self.manager.all_steps(), reverse=True):
            problem, found = self._read(step, like)
            if not problem:
                self._set_aside(problems)
                return found
            LOG.error("%s: checkpoint %d is damaged: %s", self.folder, step, problem)
            problems[step] = problem
        if problems:
            raise Failed(
                f"{self.folder}: none of the checkpoints {sorted(problems)} can be "
                f"used (newest: {next(iter(problems.values()))}); restore the folder "
                "from a copy or start in a new --workdir."
            )
        return None

    def data_of(self, step):
        """What `save` was told of the data at a step that can be read, or None."""
        return notes(self.folder / str(step))[0].get("data")

    def drop(self, step):
        """Removes the checkpoints of `step` and later ones, for good."""
        self._guarded(self.manager.wait_until_finished)
        for later in [n for n in self.manager.all_steps() if n >= step]:
            self.manager.delete(later)
        self._tidy()
        barrier("checkpoints dropped")

    def close(self):
        """Waits for writing to end; raises Failed if it did not go well."""
        try:
            self._guarded(self.manager.wait_until_finished)
        finally:
            self.manager.close()
            self._tidy()

    def _read(self, step, like):
        """(None, (state, position)) or (what is wrong, None), the same everywhere."""
        folder = self.folder / str(step)
        try:
            meta, data = notes(folder)
            wanted = items(_as_written(named(like), meta["leaves"]))
            found, problem = _leaves(folder, wanted), None
        except Exception as error:  # orbax raises many kinds for damaged files
            problem = next(file_problems(folder), None) or reason(error)
        if anywhere(problem is not None):
            return problem or "another process cannot read its part", None
        now, then = fingerprints(found), meta["leaves"]
        changed = [name for name in then if now.get(name) != then[name]]
        if changed:
            return f"{changed[0]} is not what was written", None
        state = jax.tree_util.tree_map_with_path(
            lambda path, s: found[name_of(path)].astype(s.dtype), like
        )
        return None, (state, data["position"])

    def _set_aside(self, damaged):
        """Moves damaged checkpoints out of the way of those that will be written."""
        if damaged and is_first():
            place = self.folder.parent / "damaged"
            place.mkdir(exist_ok=True)
            for step in damaged:
                copies = len(list(place.glob(f"{step}.*")))
                os.replace(self.folder / str(step), place / f"{step}.{copies}")
            LOG.error("%s: moved %s to %s", self.folder, list(damaged), place)
        if damaged:
            barrier("damaged checkpoints set aside")
            self.manager.reload()

    def _seal(self):
        """Lists the digests of a checkpoint's files, just before it is committed."""
        for folder in self.folder.glob(f"[0-9]*{ocp.utils.TMP_DIR_SUFFIX}*"):
            files = file_digests(folder)
            write_json(folder / SEAL, {**files, SEAL: digest(files)})

    def _tidy(self):
        """Removes what orbax no longer keeps, lists what the last commit wrote."""
        if not is_first():
            return
        shutil.rmtree(self.folder / DELETED, ignore_errors=True)
        for folder in self.folder.glob("[0-9]*"):
            files = digests_of(folder, BY_THE_COMMIT)
            if len(files) == len(BY_THE_COMMIT) and not (folder / COMMIT).exists():
                write_json(folder / COMMIT, {**files, COMMIT: digest(files)})

    def _guarded(self, call):
        try:
            return call()
        except Exception as error:
            raise Failed(
                f"{self.folder}: the checkpoint could not be written "
                f"({reason(error).rsplit(': ', 1)[-1]}); free space or mend the "
                "permissions and run the same command again: it resumes from the "
                "last one that was committed."
            ) from error


def named(tree):
    """{"a/b/c": leaf}, the form in which leaves are written."""
    return {
        name_of(path): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def items(leaves):
    """Named leaves by the item that holds them; the EMA can be read alone."""
    ema = {name: x for name, x in leaves.items() if name.startswith("ema/")}
    return {"ema": ema, "state": {k: x for k, x in leaves.items() if k not in ema}}


def notes(folder):
    """A checkpoint's (meta, data).

    Raises:
        OSError, ValueError: unreadable, of another layout, or not what was written.
    """
    meta, data = (
        json.loads((folder / item / "metadata").read_text(encoding="utf-8"))
        for item in ("meta", "data")
    )
    if meta.get("layout") != LAYOUT:
        raise ValueError(
            f"it has layout {meta.get('layout', 1)}, this version reads {LAYOUT}"
        )
    seal = meta.pop("seal", None)
    if seal != digest([meta, data]):
        raise ValueError("meta or data is not what was written")
    return meta, data


def file_digests(folder):
    """{"state/d/abc": 32 hexadecimal digits} of every file of a checkpoint."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = (path.relative_to(folder).as_posix() for path in paths)
    return digests_of(folder, [name for name in names if name not in UNSEALED])


def digests_of(folder, names):
    """{name: 32 hexadecimal digits} of those of the files that are there."""
    found = {}
    for name in names:
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                found[name] = hashlib.file_digest(file, _blake).hexdigest()
    return found


def file_problems(folder):
    """Yields a sentence for each file of a checkpoint that is not what was written."""
    yield from _against(folder, SEAL, file_digests(folder))
    if (folder / COMMIT).exists():
        yield from _against(folder, COMMIT, digests_of(folder, BY_THE_COMMIT))


def _against(folder, seal, now):
    """Sentences for the files whose digests `now` differ from a list of them."""
    try:
        then = json.loads((folder / seal).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        yield f"{seal}: {reason(error)}"
        return
    if then.pop(seal, None) != digest(then):
        yield f"{seal}: the file is not what was written"
        return
    for name in sorted({*then, *now}):
        if now.get(name) != then.get(name):
            yield f"{name}: {_fate(name, now, then)}"


def _fate(name, now, then):
    if name not in now:
        return "the file is missing"
    return "the file is not what was written" if name in then else "no file of ours"


def reason(error):
    """The first line of an error."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


def _blake():
    return hashlib.blake2b(digest_size=16)


def _as_written(like, leaves):
    """`like`, {name: ShapeDtypeStruct}, with the dtypes of the checkpoint.

    Raises:
        ValueError: a leaf is missing, too many, or of another shape; names it.
    """
    for name in sorted(set(leaves) ^ set(like)):
        ours = "lacks it" if name in leaves else "has it"
        raise ValueError(f"it differs in {name} from this run, which {ours}")
    for name, leaf in like.items():
        shape = tuple(leaves[name][1])
        if shape != leaf.shape:
            raise ValueError(f"{name} is {shape}, in this run {leaf.shape}")
    return {
        name: jax.ShapeDtypeStruct(x.shape, leaves[name][0], sharding=x.sharding)
        for name, x in like.items()
    }


def _leaves(folder, wanted):
    """All leaves, read without waiting for other processes: they may find damage."""
    found = {}
    for item, like in wanted.items():
        args = ocp.args.StandardRestore(like)
        place = epath.Path(folder / item)
        found |= ocp.StandardCheckpointHandler().restore(place, args=args)
    return found


def anywhere(flag):
    """Whether it holds on any process."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))
