"""Samples against a reference set: features on all processes, numbers on the first."""

import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dalle2_jax.components import file_sha256
from dalle2_jax.config import plain
from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.collect import claim, collect, total_digest
from dalle2_jax.evaluate.features import extract
from dalle2_jax.evaluate.pictures import PictureSet
from dalle2_jax.evaluate.protocol import number, provenance
from dalle2_jax.evaluate.scores import (
    SCORES,
    details,
    need_features,
    need_reference,
    taken,
    too_few,
)
from dalle2_jax.evaluate.statistics import Side, check_size, read_statistics
from dalle2_jax.shard.processes import is_first

LACKING = {
    "clip": "a CLIP; give --clip DIR",
    "clean": "Inception; give --inception FILE",
}


class Setup(NamedTuple):
    """How two sides are compared.

    metrics: names of SCORES; protocol: Protocol, its size that of the pictures; main,
    clip: Extractor; text: captions -> z_t float32 [n, d] of that CLIP; clean: Extractor
    of Inception by the clean resize; these three None where nothing asks for them;
    neighbours: of precision, recall, density and coverage, None: as many as usual.
    """

    metrics: list
    protocol: Any
    main: Any
    clip: Any = None
    text: Any = None
    clean: Any = None
    neighbours: int | None = None


class Material(NamedTuple):
    """What is compared.

    samples: PictureSet; reference: PictureSet or None; statistics: path of the
    reference's statistics or None; facts: JSON-able, of the samples (`model_facts`).
    """

    samples: PictureSet
    reference: PictureSet | None = None
    statistics: Path | None = None
    facts: dict = {}


def settings_of(setup, material, unit):
    """All that the numbers depend on, JSON-able."""
    networks = networks_of(setup).items()
    reference = material.reference
    k = {} if setup.neighbours is None else {"neighbours": setup.neighbours}
    return k | {
        "metrics": ",".join(setup.metrics),
        "protocol": plain(setup.protocol),
        "networks": {name: [e.sha256, e.resize] for name, e in networks},
        "n": material.samples.count,
        "samples": material.samples.identity | material.facts,
        "reference": reference and reference.identity | {"n": reference.count},
        "statistics": material.statistics and file_sha256(material.statistics),
        "unit": unit,
    }


def networks_of(setup):
    """{name: Extractor} that features are to be taken with; one twice is one."""
    asked = {SCORES[name].network for name in setup.metrics} - {"main"}
    others = {name: getattr(setup, name) for name in sorted(asked)}
    same = setup.main.sha256, setup.main.resize
    return {"main": setup.main} | {
        name: one
        for name, one in others.items()
        if one is not None and (one.sha256, one.resize) != same
    }


def check(setup, material):
    """Refuses what cannot come out well, before any picture is drawn.

    Raises:
        BadInput: too few pictures, or a number that lacks its reference or captions.
    """
    for pictures in filter(None, (material.samples, material.reference)):
        if pictures.count < 2:
            raise BadInput(f"{pictures.name} has 1 picture; at least 2 are needed.")
    told = _statistics(setup, material)
    for name in setup.metrics:
        score = SCORES[name]
        if getattr(setup, score.network) is None:
            raise BadInput(f"{name} needs {LACKING[score.network]}.")
        if name == "clip_score" and material.samples.captions is None:
            raise BadInput(
                "clip_score needs the samples' captions; give --captions FILE, or "
                "leave it out of --metrics."
            )
        if score.reference and material.reference is None:
            if told is None:
                raise BadInput(f"{name} needs a reference; give --data or --reference.")
            if score.network in networks_of(setup) and score.network != "main":
                raise BadInput(
                    f"{name} needs reference pictures: statistics are of one network's "
                    "features, which are not its own; give --data in their place, or "
                    "leave it out of --metrics."
                )
            need_reference(name, told)
    reasons = left_out(setup, material)
    if setup.metrics and len(reasons) == len(setup.metrics):
        raise BadInput(f"{next(iter(reasons.values()))}.")


def left_out(setup: Setup, material: Material) -> dict[str, str]:
    """{name: reason} of the numbers that so few pictures cannot give."""
    sides = filter(None, (material.samples, material.reference))
    counts = [pictures.count for pictures in sides]
    reasons = {name: too_few(name, counts, setup.neighbours) for name in setup.metrics}
    return {name: reason for name, reason in reasons.items() if reason}


def judge(setup, material, work, pace, keep=None):
    """The numbers; every process of a run calls it.

    Args:
        setup: Setup.
        material: Material.
        work: folder for what is computed, seen by all processes; what it holds of the
            same evaluation is not computed again.
        pace: Pace; its `show` is called with "samples" or "reference" before the rest.
        keep: as in `collect`, of the samples.

    Returns:
        ({name: `number`}, Sides of the main network's features: the samples'
        and the reference's or None) on process 0, else None.

    Raises:
        BadInput: as `check`, or the folder is of another evaluation.
        Preempted: pace.stop said so.
    """
    check(setup, material)
    claim(work, settings_of(setup, material, pace.unit))
    networks, theirs = networks_of(setup), None
    _check_features(setup, material, pace.unit)
    ours = _collected(work, "samples", material.samples, networks, pace, keep)
    if material.reference is not None:
        theirs = _collected(work, "reference", material.reference, networks, pace)
    if not is_first():
        return None
    samples = sides_of(ours, material.facts)
    references = _references(setup, material, theirs)
    found = numbers(setup, material, samples, references)
    return found, samples["main"], references.get("main")


def numbers(setup, material, samples, references):
    """{name: `number`} of the sides {network: Side} of both.

    What too few pictures cannot give has no value, and a "reason".
    """
    found, captions = {}, material.samples.captions
    without, k = left_out(setup, material), setup.neighbours
    asked = "clip_score" in setup.metrics
    z_text = setup.text(captions) if asked else None
    for name in setup.metrics:
        network = SCORES[name].network
        ours, theirs = _side(samples, network), _side(references, network)
        facts = _facts(setup, name, ours, theirs if SCORES[name].reference else None)
        if name in without:
            found[name] = number(math.nan, facts | {"reason": without[name]})
            continue
        value, deviation = taken(name, ours, theirs, z_text, k)
        found[name] = number(value, facts, deviation)
    pictures = material.reference
    if asked and pictures is not None and pictures.captions is not None:
        theirs = _side(references, "clip")
        value, _ = taken("clip_score", theirs, None, setup.text(pictures.captions))
        facts = _facts(setup, "clip_score", theirs, None)
        found["clip_score_reference"] = number(value, facts)
    return found


def sides_of(arrays, facts):
    """{network: Side} of what `collect` returned; facts: JSON-able, of the pictures."""
    facts = facts | {"sha256": total_digest(arrays["sha256"])}
    sides = {}
    for name, x in arrays.items():
        network, _, key = name.partition(".")
        if key:
            side = sides.setdefault(network, Side(len(x), {}, {}, facts))
            side.features[key] = x
    return sides


def _collected(work, name, pictures, networks, pace, keep=None):
    pace = pace._replace(show=functools.partial(pace.show, name))
    return collect(work / name, pictures, networks, pace, keep)


def _facts(setup, name, ours, theirs):
    """What stands beside one number."""
    chosen = getattr(setup, SCORES[name].network)
    reference = theirs and {"n": theirs.count, **theirs.facts}
    told = provenance(ours.count, setup.protocol, chosen, reference, ours.facts)
    return told | details(name, ours, theirs, setup.neighbours)


def _side(sides, network):
    return sides.get(network, sides.get("main"))


def _references(setup, material, arrays):
    """{network: Side} of the reference; statistics are of the main network."""
    told, pictures = _statistics(setup, material), material.reference
    if arrays is None:
        return {} if told is None else {"main": told}
    sides = sides_of(arrays, {"name": pictures.name, "n": pictures.count})
    if told is not None:
        facts = told.facts | {"pictures": sides["main"].facts}
        main = sides["main"]._replace(moments=told.moments, facts=facts)
        sides["main"] = main
    return sides


def _check_features(setup, material, unit):
    """One black picture tells what features there are before any picture is drawn."""
    side = setup.protocol.size
    black = np.zeros((1, side, side, 3), np.uint8)
    devices = jax.local_devices()[: math.ceil(material.samples.count / unit)]
    found = extract(setup.main.function, black, unit, devices)
    for name in setup.metrics:
        if SCORES[name].network == "main":
            need_features(name, found)
    told = _statistics(setup, material)
    if told is not None:
        check_size(material.statistics, told, found["pool"].shape[-1])


def _statistics(setup, material):
    if material.statistics is None:
        return None
    return read_statistics(material.statistics, setup.main, setup.protocol)
