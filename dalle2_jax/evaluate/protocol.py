"""How a number was measured, and the form in which it is reported with that."""

import dataclasses
import hashlib
import math
from pathlib import Path

from dalle2_jax import __version__
from dalle2_jax.components import components_of, file_sha256
from dalle2_jax.errors import BadInput

CROPS = ("center", "squeeze")
FEW = 10_000  # samples below which distances are warned of


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What two numbers must share to be compared.

    resize: rule by which pictures reach the feature network's size; crop: how a
    reference picture becomes square; size: its side (0: the side of the samples);
    n, references: numbers of pictures on the two sides (0: as asked); reference: what
    the reference set is.
    """

    name: str = "custom"
    resize: str = "legacy_tf"
    crop: str = "center"
    size: int = 0
    n: int = 0
    references: int = 0
    reference: str = "the pictures given"

    def __post_init__(self):
        assert self.crop in CROPS, f"crop must be one of {', '.join(CROPS)}"


COCO = "coco2014-val-30k-v1"
PROTOCOLS = {
    COCO: Protocol(
        COCO,
        size=256,
        n=30_000,
        references=40_504,
        reference="all of val2014, shorter side 256 by bicubic, centre crop",
    )
}


def protocol_of(name):
    """The named protocol.

    Raises:
        BadInput: there is none of that name.
    """
    if name not in PROTOCOLS:
        known = ", ".join(PROTOCOLS)
        raise BadInput(f"--protocol {name} is not known; there is {known}.")
    return PROTOCOLS[name]


def number(value, provenance, deviation=None):
    """The JSON form of a reported number.

    Args:
        value: float.
        provenance: dict of how it came about (`provenance`, or any JSON-able facts).
        deviation: standard deviation of the value, where there is one.

    Returns:
        {"value", "deviation" where given, **provenance}; what is not finite is None.
    """
    finite = float(value) if math.isfinite(value) else None
    spread = {} if deviation is None else {"deviation": float(deviation)}
    return {"value": finite, **spread, **provenance}


def provenance(n, protocol, extractor=None, reference=None, drawn=None):
    """What stands beside a number.

    Args:
        n: samples.
        protocol: Protocol.
        extractor: Extractor, where features were taken.
        reference: JSON-able facts of the reference set ("name", "sha256", "n").
        drawn: `model_facts` of the model that drew the samples, or facts of a file.
    """
    facts = {"n": n, "protocol": protocol.name, "crop": protocol.crop}
    facts["size"] = protocol.size
    if extractor is not None:
        facts["features"] = extractor.name
        facts["features_sha256"] = extractor.sha256
        facts["resize"] = extractor.resize
    if reference is not None:
        facts["reference"] = reference
    if drawn is not None:
        facts["samples"] = drawn
    return facts | {"version": __version__}


def model_facts(folder, model, how, seed):
    """What is known of a model and of how it is sampled, JSON-able.

    Args:
        folder: the model directory.
        model: UnCLIP, loaded from it.
        how: {stage: Sampling}.
        seed: of the samples.
    """
    held = (stage for stage in how if getattr(model, stage) is not None)
    runs = {stage: getattr(model, stage).config for stage in held}
    ways = {
        stage: {k: getattr(way, k) for k in ("sampler", "steps", "guidance")}
        for stage, way in how.items()
    }
    return {
        "model": Path(folder).resolve().name,
        "model_sha256": folder_sha256(folder),
        "trained_steps": {s: runs[s].get("steps") for s in runs},
        "ema": {s: runs[s].get("optim", {}).get("ema") for s in runs},
        "sampling": ways,
        "seed": seed,
    }


def folder_sha256(folder):
    """SHA-256 of a model directory: every component's files, in their order."""
    total = hashlib.sha256()
    for stage in components_of(folder):
        for name in ("config.json", "model.safetensors"):
            digest = file_sha256(Path(folder, stage, name))
            total.update(f"{stage}/{name} {digest}\n".encode())
    return total.hexdigest()
