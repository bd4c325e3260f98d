"""A finished prior knows the mean square of its eps, which Analytic-DPM asks for."""

import json

import jax
import numpy as np

from dalle2_jax.cli.overrides import load_run
from dalle2_jax.components import load_component
from dalle2_jax.train.fit import Job, fit


def test_a_trained_prior_can_be_sampled_by_analytic_dpm(shards, tmp_path):
    from dalle2_jax.unclip import Caption, Sampling, run_stage, sample_prior

    model, usual = tmp_path / "model", ["batch=8", "steps=2", "log_every=1"]
    small = {
        "clip.py": ["model.text.depth=1", "model.image.width=16"],
        "prior_diffusion.py": ["model.width=32", "model.depth=1"],
    }
    for name, words in small.items():
        changes = [f"--config.{word}" for word in [*usual, *words]]
        run = load_run(f"configs/{name}:small", changes)
        fit(run, Job([str(p) for p in shards], tmp_path / name, model))
    config = json.loads((model / "prior/config.json").read_text())
    squares = np.asarray(config["eps_square"])
    assert squares.shape == (33,) and np.all(squares > 0)
    assert abs(squares[-1] - 1) < 0.3  # at t = T the network sees nothing but noise
    part = load_component(model, "prior")
    cfg, keys = part.cfg, jax.random.split(jax.random.key(0), 2)
    states = np.zeros((2, cfg.context, cfg.text_width), "f")
    z_text = np.eye(2, cfg.clip, dtype="f")
    caption = Caption(None, z_text, states, np.ones((2, cfg.context), bool))
    ways = [Sampling(steps="4", sampler=s) for s in ("analytic", "ancestral")]
    one, other = (run_stage(sample_prior, part, caption, keys, how) for how in ways)
    np.testing.assert_allclose(np.linalg.norm(one, axis=-1), 1, rtol=1e-5)
    assert np.abs(one - other).max() > 1e-3
