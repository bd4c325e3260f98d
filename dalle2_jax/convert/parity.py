"""Our models against numbers that the original implementations computed.

A parity file (safetensors) holds `param/*`, `input/*`, `output/*` of one small case
and, in its metadata, the family and the original's constructor arguments: any sizes
will do.
"""

import json
from typing import NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from dalle2_jax.convert.parity_adm import ADM_FAMILIES
from dalle2_jax.convert.parity_clip import CLIP_FAMILIES
from dalle2_jax.convert.parity_dalle2_pytorch import DALLE2_PYTORCH_FAMILIES
from dalle2_jax.convert.parity_loops import LOOP_FAMILIES
from dalle2_jax.convert.parity_unclip import UNCLIP_FAMILIES
from dalle2_jax.errors import BadInput

FAMILIES = {
    **CLIP_FAMILIES,
    **UNCLIP_FAMILIES,
    **ADM_FAMILIES,
    **DALLE2_PYTORCH_FAMILIES,
    **LOOP_FAMILIES,
}
LOOP_TOLERANCE = 1e-2  # the originals' float32 tables alone move loops by 4e-3
NOTHING = 1e-12  # an output as small is rounding, and compared by its size alone


class Case(NamedTuple):
    """One parity file. params, inputs, outputs: {name: numpy array}."""

    path: str
    family: str
    config: dict
    params: dict
    inputs: dict
    outputs: dict


class Difference(NamedTuple):
    """One output: ||a - b|| / ||b||, the largest |a - b|, and whether that is close."""

    output: str
    relative: float
    largest: float
    close: bool


class Report(NamedTuple):
    """What `check` found; `skipped` names outputs that say nothing about a port."""

    family: str
    differences: list[Difference]
    skipped: list[str]


def read_case(path):
    """The parity file at `path`.

    Raises:
        BadInput: not a safetensors file, or without the metadata of a parity file.
    """
    groups = {"param": {}, "input": {}, "output": {}}
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            for key in sorted(file.keys()):
                kind, _, name = key.partition("/")
                groups.setdefault(kind, {})[name] = file.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path} cannot be read as safetensors: {error}.") from error
    if not {"case", "config"} <= set(metadata):
        raise BadInput(
            f"{path} is no parity file: its metadata has no case and config."
        )
    config = json.loads(metadata["config"])
    arrays = (groups[kind] for kind in ("param", "input", "output"))
    return Case(str(path), metadata["case"], config, *arrays)


def check(path, tolerance=1e-4, families=FAMILIES):
    """Imports the file's weights, runs our model on its inputs, compares the outputs.

    An output is close if neither its relative error nor its largest error (in units of
    its largest value, if that is above 1) is past the tolerance; sampling loops have
    1e-2; integers and masks must be equal. families: {name: function of a Case}.

    Raises:
        BadInput: unreadable, of a family that is not supported, or with weights that do
            not fit the model of its config.
    """
    case = read_case(path)
    if case.family not in families:
        raise BadInput(
            f"{path}: the family {case.family} is not supported; supported are "
            f"{', '.join(sorted(families))}."
        )
    if case.family in LOOP_FAMILIES:
        tolerance = max(tolerance, LOOP_TOLERANCE)
    try:
        with jax.default_matmul_precision("highest"):
            ours = jax.device_get(families[case.family](case))
    except (KeyError, TypeError) as error:
        raise BadInput(f"{path}: incomplete for {case.family}: {error}.") from error
    found = [
        difference(name, ours[name], theirs, tolerance)
        for name, theirs in sorted(case.outputs.items())
        if name in ours
    ]
    skipped = sorted(set(case.outputs) - set(ours))
    return Report(case.family, found, skipped)


def difference(name, ours, theirs, tolerance):
    """Compares one output; arrays of any numeric kind."""
    exact = not np.issubdtype(theirs.dtype, np.floating)
    if ours.shape != theirs.shape:
        return Difference(name, float("inf"), float("inf"), False)
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    largest = float(np.max(np.abs(a - b), initial=0))
    norm = float(np.linalg.norm(b))
    relative = float(np.linalg.norm(a - b)) / (norm if norm > NOTHING else 1.0)
    unit = max(1.0, float(np.max(np.abs(b), initial=0)))
    close = largest == 0 if exact else max(relative, largest / unit) <= tolerance
    return Difference(name, relative, largest, close)
