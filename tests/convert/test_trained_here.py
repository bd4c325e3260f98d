"""Every stage trained here in a form that diffusers knows: the same pictures there."""

import foreign
import numpy as np
import pytest

from dalle2_jax.cli.overrides import load_run
from dalle2_jax.convert.exporter import export_weights
from dalle2_jax.data.write_shapes import make_shapes
from dalle2_jax.train.fit import Job, fit

UNET = ["channels=32", "multiples=(1,2)", "depth=1", "remat=False", "dtype=float32"]
UNET = [f"model.unet.{change}" for change in UNET]
DATA = [f"data.context={foreign.CONTEXT}", "data.size=16", "data.group=1", "batch=8"]
UPSAMPLER = [*UNET, "model.size=16", "model.factor=2", "corrupt.crop=1.0"]
STAGES = {  # configuration, what makes it tiny
    "clip": (
        "clip.py:small",
        [
            "model.unit=False",
            "model.image.size=16",
            "model.image.stem=patch",
            "model.image.head=class",
            f"model.text.context={foreign.CONTEXT}",
        ],
    ),
    "prior": (
        "prior_diffusion.py:karlo",
        [
            "model.clip=64",
            "model.text_width=64",
            "model.width=32",
            "model.heads=2",
            "model.depth=2",
            f"model.context={foreign.CONTEXT}",
            "model.dtype=float32",
            "codes_from=32",
        ],
    ),
    "decoder": (
        "decoder_64.py:karlo",
        [
            *UNET,
            "model.size=8",
            "model.clip=64",
            "model.text_width=64",
            "model.tokens=2",  # diffusers drops a mask as long as a level has pixels
            "model.unet.attend=(2,)",
            "model.unet.head_width=16",
            "model.unet.context_width=32",
        ],
    ),
    "upsampler": ("upsampler_256.py:karlo", UPSAMPLER),
    "upsampler_last": (
        "upsampler_256.py:karlo",
        [*UPSAMPLER, "stage=upsampler_last", "seed=1"],
    ),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model directory: five stages, four steps each, large enough to leave zero."""
    folder = tmp_path_factory.mktemp("trained")
    shards = [str(path) for path in make_shapes("simple", 64, 0, folder / "data")]
    usual = [*DATA, "steps=4", "optim.rate=1e-2", "optim.warmup=0", "optim.ema=0.0"]
    for stage, (name, smaller) in STAGES.items():
        words = [f"--config.{change}" for change in (*usual, *smaller)]
        run = load_run(f"configs/{name}", words)
        fit(run, Job(shards, folder / stage, folder / "model"))
    return folder / "model"


def test_diffusers_draws_the_same_pictures(model, tmp_path):
    export_weights(model, tmp_path / "diffusers", "diffusers")
    theirs = foreign.pictures_of(foreign.loaded(tmp_path / "diffusers"))
    ours = foreign.our_pictures(model)
    assert theirs.std() > 0.1  # not one grey
    assert np.abs(theirs - ours).max() < 1e-2
