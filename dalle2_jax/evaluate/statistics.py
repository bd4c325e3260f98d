"""Files of reference statistics: ours, and those of ADM, EDM and clean-fid.

All are .npz. mu and sigma (float64) are common to all; ADM has mu_s and sigma_s of the
spatial features and pictures, arr_0; clean-fid has feats alone in its _kid.npz. Ours
has mu, sigma (mu_s, sigma_s), feats, num_samples and, as a JSON string, protocol.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dalle2_jax.components import file_sha256
from dalle2_jax.data.numpy_files import arrays_of
from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.frechet import Moments, moments

NAMES = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
SHARED = ("features_sha256", "resize", "crop", "size")  # by both sides of a distance
UNTOLD = 50_000  # samples a foreign file is taken to be of; its sigma is a covariance


class Side(NamedTuple):
    """One side of a comparison.

    count: pictures; features: {"pool": float32 [n, d], ...}; moments: {"pool":
    Moments, ...} where they are given; facts: JSON-able, what is said of it.
    """

    count: int
    features: dict
    moments: dict
    facts: dict


def moments_of(side, key):
    """The given Moments of a side, or those of its features, in float64."""
    return side.moments[key] if key in side.moments else moments(side.features[key])


def read_statistics(path, extractor, protocol):
    """A reference side from a file of statistics.

    Args:
        path: .npz.
        extractor: Extractor, of the samples' features.
        protocol: Protocol, with the samples' size.

    Raises:
        BadInput: no such file, no statistics in it, or of another protocol (named).
    """
    arrays = arrays_of(path, "arr_0".__ne__)
    told = _told(path, arrays, extractor)
    wanted = shared(extractor, protocol)
    for name, value in told.items():
        if name in wanted and value != wanted[name]:
            raise BadInput(
                f"{path} was made with {name} {value}, the samples have "
                f"{wanted[name]}; distances between the two mean nothing."
            )
    features = {"pool": arrays["feats"]} if "feats" in arrays else {}
    told_n = arrays.get("num_samples", len(features["pool"]) if features else None)
    count = UNTOLD if told_n is None else int(told_n)
    found = {
        key: _moments(path, arrays, names, count)
        for key, names in NAMES.items()
        if names[0] in arrays
    }
    if not found and not features:
        raise BadInput(f"{path} holds neither mu and sigma nor feats; see its maker.")
    facts = {"name": told.get("name", Path(path).name), "sha256": file_sha256(path)}
    facts["n"] = None if told_n is None else count
    return Side(count, features, found, facts)


def check_size(path, side, width):
    """Raises BadInput where statistics are not of features [n, width]."""
    have = [np.shape(x)[-1] for x in side.features.values()]
    have += [len(side.moments["pool"].mean)] if "pool" in side.moments else []
    if have and have[0] != width:
        raise BadInput(
            f"{path} is of {have[0]} features a picture, the samples have {width}; it "
            "was made with another network."
        )


def write_statistics(path, side, extractor, protocol):
    """Writes a side as a file that this and other packages read.

    Args:
        path: .npz.
        side: Side, with features.
        extractor, protocol: what they were taken by.
    """
    path = Path(path)
    told = shared(extractor, protocol) | {"name": side.facts["name"]}
    told |= {"features": extractor.name, "protocol": protocol.name}
    told |= {"pictures_sha256": side.facts.get("sha256")}
    arrays = {"num_samples": side.count, "protocol": json.dumps(told)}
    arrays["feats"] = side.features["pool"]
    for key, names in NAMES.items():
        if key in side.features:
            found = moments_of(side, key)
            arrays |= dict(zip(names, (found.mean, found.covariance)))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    with draft.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(draft, path)


def shared(extractor, protocol):
    """What both sides of a distance must have alike."""
    return {
        "features_sha256": extractor.sha256,
        "resize": extractor.resize,
        "crop": protocol.crop,
        "size": protocol.size,
    }


def _told(path, arrays, extractor):
    """What a file says of its protocol; {} for a foreign file, of Inception."""
    text = arrays.get("protocol")
    if text is None and not extractor.name.startswith("inception"):
        raise BadInput(
            f"{path} names no protocol, so it is taken to be of Inception's features, "
            f"and the samples' are of {extractor.name}; give --inception FILE."
        )
    try:
        return {} if text is None else dict(json.loads(str(text)))
    except (ValueError, TypeError) as error:
        raise BadInput(f"{path}: protocol is no JSON object ({error}).") from error


def _moments(path, arrays, names, count):
    """Moments from a mean [d] and a covariance [d, d]."""
    mean, covariance = (arrays.get(name) for name in names)
    d = np.size(mean)
    if np.shape(mean) != (d,) or np.shape(covariance) != (d, d):
        raise BadInput(
            f"{path}: {names[0]} {np.shape(mean)} and {names[1]} "
            f"{np.shape(covariance)} are no mean and covariance."
        )
    if not np.isfinite(mean).all() or not np.isfinite(covariance).all():
        raise BadInput(f"{path}: {' and '.join(names)} are not finite; make it again.")
    m2 = np.asarray(covariance, np.float64) * (count - 1)
    return Moments(count, np.asarray(mean, np.float64), m2)
