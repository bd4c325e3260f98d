"""unCLIP §5.3: every score against the guidance scale, with deviations over seeds."""

import dataclasses
from typing import NamedTuple

import numpy as np

from dalle2_jax.evaluate.routes import FROM_PRIOR, embedding, pictures, prior_on
from dalle2_jax.evaluate.yardstick import scores
from dalle2_jax.unclip import sampling_of


class Setting(NamedTuple):
    """route: a name of routes.NAMED; prior, decoder: guidance, None: as configured."""

    route: str
    prior: float | None = None
    decoder: float | None = None


def settings(routes, scales, prior_scales=(None,)):
    """Every combination; a route without a prior has no scale of it."""
    return [
        Setting(route, prior, scale)
        for route in routes
        for prior in (prior_scales if route in FROM_PRIOR else (None,))
        for scale in scales
    ]


def guided_by(model, setting, how=None):
    """{stage: Sampling}: `how`, with the scales of a Setting in it."""
    changed = dict(how or {})
    stage = prior_on(model, setting.route)
    for name, scale in ((stage, setting.prior), ("decoder", setting.decoder)):
        if scale is not None:
            way = changed.get(name) or sampling_of(getattr(model, name))
            changed[name] = dataclasses.replace(way, guidance=scale)
    return changed


def sweep(model, measure, chosen, seeds, metrics, how):
    """Draws and judges; z_i of a prior is drawn once for all the decoder's scales.

    Args:
        model: UnCLIP.
        measure: Yardstick.
        chosen: Settings.
        seeds: of the samples.
        metrics: names of yardstick.METRICS.
        how: {stage: Sampling}.

    Yields:
        (Setting, seed, {metric: float}), as soon as it is known.
    """
    captions, kept = measure.wanted.captions, {}
    for setting in chosen:
        ways = guided_by(model, setting, how)
        for seed in seeds:
            source = setting.route, setting.prior, seed
            if source not in kept:
                z = embedding(
                    model, setting.route, captions, measure.z_real, seed, ways
                )
                kept[source] = z
            drawn = pictures(model, setting.route, captions, kept[source], seed, ways)
            yield setting, seed, scores(measure, drawn, metrics)


def over_seeds(found):
    """[(Setting, seed, {metric: float})] -> {Setting: {metric: (mean, deviation)}}.

    The deviation is that of a sample (n - 1); None where there is one seed.
    """
    values = {}
    for setting, _, measured in found:
        for metric, value in measured.items():
            values.setdefault(setting, {}).setdefault(metric, []).append(value)
    return {
        setting: {name: _spread(of_one) for name, of_one in metrics.items()}
        for setting, metrics in values.items()
    }


def _spread(values):
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), deviation
