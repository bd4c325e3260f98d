"""Runs: every configuration in configs/ is one, and what makes two of them differ."""

import dataclasses
import runpy
from pathlib import Path

import pytest

from dalle2_jax.cli.overrides import load_run
from dalle2_jax.errors import BadInput
from dalle2_jax.train.run import as_dict, difference, run_from
from dalle2_jax.unclip import Sampling

FILES = sorted(set(Path("configs").glob("*.py")) - {Path("configs/__init__.py")})
CHOICES = [
    f"{path}:{variant}"
    for path in FILES
    for variant in runpy.run_path(str(path))["VARIANTS"]
]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_variant_is_a_run_and_survives_json(choice):
    run = load_run(choice)
    assert run_from(as_dict(run)) == run


def test_the_paper_is_the_default_and_says_table_3():
    prior = load_run("configs/prior_diffusion.py")
    assert (prior.optim.rate, prior.optim.beta2, prior.batch) == (1.1e-4, 0.96, 4096)
    decoder = load_run("configs/decoder_64.py")
    assert decoder.model.unet.multiples == (1, 2, 3, 4) and decoder.steps == 800_000
    assert (decoder.corrupt.drop_image, decoder.corrupt.drop_text) == (0.1, 0.5)
    upsampler = load_run("configs/upsampler_256.py")
    assert upsampler.model.unet.attend == () and upsampler.corrupt.crop == 0.25


# rate, beta2, eps, weight decay, EMA, batch, iterations: unCLIP Table 3, and for CLIP
# Table 18 of its paper (ViT) with unCLIP App. C's rate and SAM
TABLE = {
    "prior_autoregressive": (1.6e-4, 0.91, 1e-10, 4e-2, 0.999, 4096, 1_000_000),
    "prior_diffusion": (1.1e-4, 0.96, 1e-6, 6e-2, 0.9999, 4096, 600_000),
    "decoder_64": (1.2e-4, 0.999, 1e-8, 0.0, 0.9999, 2048, 800_000),
    "upsampler_256": (1.2e-4, 0.999, 1e-8, 0.0, 0.9999, 1024, 1_000_000),
    "upsampler_1024": (1.0e-4, 0.999, 1e-8, 0.0, 0.9999, 512, 1_000_000),
    "clip": (3e-4, 0.98, 1e-6, 0.2, 0.9999, 32_768, 400_000),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_optimizer_is_the_one_of_the_paper(name):
    run = load_run(f"configs/{name}.py")
    cfg = run.optim
    ours = (cfg.rate, cfg.beta2, cfg.eps, cfg.decay, cfg.ema, run.batch, run.steps)
    assert ours == TABLE[name] and cfg.beta1 == 0.9
    assert (cfg.sam_rho, cfg.sam_group) == (0.1 if name == "clip" else 0.0, 64)


def test_an_override_reaches_fields_left_at_their_defaults():
    run = load_run("configs/decoder_64.py:small", ["--config.model.unet.patch=2"])
    assert run.model.unet.patch == 2


def test_what_may_change_between_a_run_and_its_resumption():
    run = load_run("configs/decoder_64.py:small")
    assert difference(run, dataclasses.replace(run, keep=9, log_every=1)) is None
    other = dataclasses.replace(run, sampling=Sampling(steps="3"))
    assert difference(run, other) is None
    optim = dataclasses.replace(run.optim, rate=1.0)
    assert difference(run, dataclasses.replace(run, optim=optim)) == "config.optim.rate"
    assert difference(run, dataclasses.replace(run, batch=3)) == "config.batch"
    assert difference(run, dataclasses.replace(run, steps=3)) is None


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "x", True])
def test_a_seed_is_a_whole_number_of_64_bits(seed):
    with pytest.raises(BadInput, match="config.seed"):
        load_run("configs/clip.py:small", [f"--config.seed={seed!r}"])
    assert load_run("configs/clip.py", [f"--config.seed={2**64 - 1}"]).seed == 2**64 - 1


def test_what_blocks_keep_may_change_but_has_a_name():
    words = ["--config.remat_keeps=products"]
    assert (
        difference(load_run("configs/clip.py"), load_run("configs/clip.py", words))
        is None
    )
    with pytest.raises(BadInput, match="remat_keeps must be one of nothing, products"):
        load_run("configs/clip.py", ["--config.remat_keeps=all"])


@pytest.mark.parametrize(
    "config, change, words",
    [
        ("classifier", "data.caption=''", "needs config.data.caption"),
        ("classifier", "data.context=2", "config.data.context=1"),
        ("classifier", "model.unet.out_channels=3", "has 8 names and .* is 3"),
        ("clip", "data.classes=('a',)", "classes is for classifiers; leave it out of"),
    ],
)
def test_labels_belong_to_classifiers(config, change, words):
    with pytest.raises(BadInput, match=words):
        load_run(f"configs/{config}.py:small", [f"--config.{change}"])
