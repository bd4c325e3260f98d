"""What a run directory's checkpoints are worth, without a device and without the run.

Every file is compared with its digest and every leaf, read one at a time, with the
fingerprint that was taken of it on the device.
"""

from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

from dalle2_jax.errors import BadInput
from dalle2_jax.train.checkpoint import (
    file_problems,
    items,
    notes,
    reason,
)
from dalle2_jax.train.fingerprint import digest, fingerprint_on_host


def steps_of(workdir):
    """Steps of the committed checkpoints, oldest first."""
    found = (Path(workdir) / "checkpoints").glob("*")
    return sorted(int(path.name) for path in found if path.name.isdecimal())


def problems(folder):
    """What is wrong with one checkpoint: a sentence for each file and leaf.

    Args:
        folder: checkpoints/<step>.
    """
    folder = Path(folder).resolve()  # orbax takes no relative paths
    found = list(file_problems(folder))
    try:
        meta, _ = notes(folder)
    except (OSError, ValueError) as error:
        return [*found, f"meta: {reason(error)}"]
    for item, leaves in items(meta["leaves"]).items():
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            for name, record in leaves.items():
                problem = _leaf_problem(reader, folder / item, name, record)
                found += [f"{name}: {problem}"] if problem else []
    return found


def digests(workdir):
    """Step, data position and a digest of each part of the newest checkpoint.

    Two runs whose lines agree are in the same state, bit for bit.

    Raises:
        BadInput: there is no checkpoint, or its notes are damaged.
    """
    steps = steps_of(workdir)
    if not steps:
        raise BadInput(f"{workdir} holds no checkpoint yet; train it for a while.")
    folder = Path(workdir) / "checkpoints" / str(steps[-1])
    try:
        meta, data = notes(folder)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{folder} is damaged ({reason(error)}); --verify says which are not."
        ) from error
    parts = {}
    for name, record in meta["leaves"].items():
        parts.setdefault(name.split("/")[0], {})[name] = record
    del parts["step"]
    sums = {name: digest(leaves) for name, leaves in sorted(parts.items())}
    return {"step": steps[-1], **sums, "data": data["position"]}


def _leaf_problem(reader, folder, name, record):
    how = ocp.RestoreArgs(restore_type=np.ndarray)
    args = ocp.args.PyTreeRestore(
        item={name: 0}, restore_args={name: how}, partial_restore=True
    )
    try:
        leaf = reader.restore(folder, args=args)[name]
    except Exception as error:  # orbax raises many kinds for damaged files
        return reason(error)
    same = fingerprint_on_host(np.asarray(leaf)) == record
    return None if same else "the leaf is not what was written"
