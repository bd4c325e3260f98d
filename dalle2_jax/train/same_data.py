"""Which data a run has read is part of the run, as the position in them is.

workdir/data.json lists the shards by name, bytes and samples, and how they were made
where they were generated; every checkpoint keeps the digest of it. A position says
nothing in other data, so a run goes on with other data only where it is told to.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dalle2_jax.components import read_json
from dalle2_jax.data.identity import Shard
from dalle2_jax.data.shard_index import is_url
from dalle2_jax.data.write_shapes import DESCRIPTION
from dalle2_jax.errors import BadInput
from dalle2_jax.files import replacing
from dalle2_jax.train.checkpoint import notes
from dalle2_jax.train.embed import ABOUT
from dalle2_jax.train.fingerprint import digest
from dalle2_jax.train.verify import steps_of

FILE = "data.json"
SHOWN = 3  # shards that a message names
FLAG = "--other-data"


class Record(NamedTuple):
    """What data.json holds. made: [what generated shards say of themselves, ...]."""

    made: list
    shards: list[Shard]

    @property
    def summary(self) -> dict:
        """What a checkpoint keeps of it: {"digest", "shards", "samples"}."""
        counts = [shard.samples for shard in self.shards]
        return {
            "digest": digest(list(self)),
            "shards": len(counts),
            "samples": None if None in counts else sum(counts),
        }


def record_of(source: Any) -> Record:
    """The Record of a data source (anything with `identity`).

    Raises:
        BadInput: a shard has gone since it was opened.
    """
    return Record(sorted(_descriptions(source), key=str), source.identity())


def _descriptions(source):
    """What `data make-shapes` and `data embed` have written beside their files."""
    inner = getattr(source, "source", source)
    local = (path for path in getattr(inner, "shards", ()) if not is_url(path))
    folders = {Path(path).parent for path in local}
    folders |= {inner.folder} if hasattr(inner, "folder") else set()
    for folder in folders:
        for path in (folder / DESCRIPTION, folder / ABOUT):
            if path.is_file():
                yield read_json(path, "restore it, or make the data again")


def settle_data(workdir: Path, source: Any, other: bool = False) -> None:
    """Notes which data a run reads, or refuses others than it has read so far.

    A run without a checkpoint has learned from no data, one of an earlier version does
    not say from which: both take what is there.

    Args:
        workdir: the run directory.
        source: of `train.inputs.open_source`.
        other: whether the run may go on with other data.

    Raises:
        BadInput: the data are others; names shards that are gone, new or changed.
    """
    now, steps = record_of(source), steps_of(workdir)
    if steps and not other:
        said = "; ".join(_changes(workdir, steps, now))
        if said:
            raise BadInput(
                f"{workdir} has read other data until step {steps[-1]}: {said}; give "
                f"it the data it began with, or {FLAG} to go on with these."
            )
    with replacing(Path(workdir) / FILE) as draft:
        text = json.dumps({"summary": now.summary, **now._asdict()})
        draft.write_text(text + "\n", encoding="utf-8")


def summary_in(workdir: Path) -> dict:
    """What checkpoints keep of the data that data.json names."""
    return read_json(Path(workdir) / FILE, "run the same command again")["summary"]


def position_in(
    position: int | dict, then: dict | None, now: dict | None
) -> int | dict:
    """Where a run goes on in its data.

    A place within a block of shards is none in other shards: those are begun with the
    next epoch. A sample number counts on.

    Args:
        position: of a checkpoint.
        then, now: summaries of the data that it is a position in, and of those that are
            read from here on; None: not known.
    """
    same = then is None or now is None or then["digest"] == now["digest"]
    if same or not isinstance(position, dict):
        return position
    return {**position, "epoch": position["epoch"] + 1, "block": 0, "offset": 0}


def _changes(workdir, steps, now):
    """Sentences on what differs from the data that a run has read."""
    path = Path(workdir) / FILE
    if path.is_file():
        yield from differences(_read(path), now)
        return
    kept = next(filter(None, (_kept(workdir, step) for step in reversed(steps))), None)
    if kept is None:
        text = "%s does not say which data it has read; these are noted from now on"
        logging.getLogger("dalle2_jax").warning(text, workdir)
    elif kept["digest"] != now.summary["digest"]:
        yield f"then {_counted(kept)}, now {_counted(now.summary)}"


def _kept(workdir, step):
    """What a checkpoint keeps of its data, or None."""
    try:
        return notes(Path(workdir) / "checkpoints" / str(step))[0].get("data")
    except (OSError, ValueError):  # damaged: restoring says so
        return None


def _read(path):
    """The Record of a data.json."""
    found = read_json(path, f"restore it, or remove it and give {FLAG}")
    try:
        return Record(found["made"], [Shard(*one) for one in found["shards"]])
    except (KeyError, TypeError) as error:
        raise BadInput(
            f"{path} is no record of data; restore it, or remove it and give {FLAG}."
        ) from error


def differences(then: Record, now: Record) -> Iterator[str]:
    """What has changed from one Record to another, a phrase each."""
    old = {shard.name: shard for shard in then.shards}
    new = {shard.name: shard for shard in now.shards}
    both = [(old[name], new[name]) for name in old if name in new]
    changed = [_change(a, b) for a, b in both if _differ(a, b)]
    found = {
        "gone": [name for name in old if name not in new],
        "new": [name for name in new if name not in old],
        "changed": changed,
    }
    yield from (f"{what} {_some(names)}" for what, names in found.items() if names)
    if not any(found.values()) and list(old) != list(new):
        yield "the same shards in another order"
    for ours, theirs in zip(then.made, now.made):
        yield from (
            f"made with {name} {theirs.get(name)}, before {ours.get(name)}"
            for name in {**ours, **theirs}
            if ours.get(name) != theirs.get(name)
        )


def _differ(a, b):
    pairs = zip(a[1:], b[1:])
    return any(x != y for x, y in pairs if x is not None and y is not None)


def _change(a, b):
    what, unit = ("samples", "samples") if a.samples != b.samples else ("size", "bytes")
    return f"{a.name} ({getattr(a, what)} {unit}, now {getattr(b, what)})"


def _some(names):
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _counted(summary):
    samples = summary["samples"]
    known = "" if samples is None else f" with {samples} samples"
    return f"{summary['shards']} shards{known}"
