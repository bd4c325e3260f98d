"""Parameter counts at full size, from shapes alone: of the paper, of released files."""

import functools
import math

import pytest

from dalle2_jax.cli.overrides import load_run
from dalle2_jax.components import expected_shapes, unflatten
from dalle2_jax.convert.adm import (
    GUIDED_FILES,
    classifier_config,
    classifier_table,
    decoder_config,
    decoder_table,
)
from dalle2_jax.convert.glide import GLIDE_FILES, glide_config, glide_table
from dalle2_jax.convert.rename import keys

# unCLIP Table 3, rounded there to the last digit given here. The decoder's 3.5B is the
# sum of two rounded numbers, GLIDE's 2.3B and 1.2B; both are held one by one below.
STATED = {  # lowest, highest
    "configs/prior_diffusion.py": (0.5e9, 1.5e9),
    "configs/decoder_64.py": (3.4e9, 3.6e9),
    "configs/upsampler_256.py": (650e6, 750e6),
    "configs/upsampler_1024.py": (250e6, 350e6),
}
KARLO = {
    # the original keeps mean and deviation, 2 x 768, in a file of their own
    "configs/prior_diffusion.py:karlo": 1_022_028_544 + 2 * 768,
    "configs/decoder_64.py:karlo": 893_318_086,
    "configs/upsampler_256.py:karlo": 691_579_523,
}
FILES = {  # parameters, tensors where known
    "64x64_diffusion.pt": (295_904_454, 541),
    "256x256_diffusion.pt": (553_838_086, None),
    "256x256_diffusion_uncond.pt": (552_814_086, None),
    "64_256_upsampler.pt": (311_795_910, None),
    "64x64_classifier.pt": (65_438_568, None),
    "256x256_classifier.pt": (54_096_360, None),
    "base.pt": (385_030_726, 783),
    "base_inpaint.pt": (385_037_638, 783),
    "upsample.pt": (398_361_286, 797),
    "upsample_inpaint.pt": (398_368_198, 797),
}
PUBLISHED = {**GUIDED_FILES, **GLIDE_FILES}
KINDS = {  # configuration from a constructor's arguments, table
    "glide": (glide_config, glide_table),
    "adm": (decoder_config, decoder_table),
    "classifier": (classifier_config, classifier_table),
}
shapes = functools.cache(expected_shapes)


def count(stage, cfg, part=""):
    """Parameters of a stage's network whose paths begin with `part`."""
    sizes = shapes(stage, cfg).items()
    return sum(math.prod(shape) for name, shape in sizes if name.startswith(part))


@pytest.mark.parametrize("path", STATED)
def test_the_papers_models_have_the_stated_sizes(path):
    run = load_run(path)
    low, high = STATED[path]
    assert low < count(run.stage, run.model) < high


def test_the_decoder_is_glides_text_transformer_and_the_rest_of_glide():
    run = load_run("configs/decoder_64.py")
    text = count("decoder", run.model, "caption/layers")
    z_image = count("decoder", run.model, "image_")
    rest = count("decoder", run.model) - text - z_image
    assert 1.15e9 < text < 1.25e9
    assert 2.25e9 < rest < 2.35e9


def test_the_autoregressive_prior_is_the_two_transformers_of_table_3():
    """Their widths and depths give 2.0B weights; the 1B printed there is neither."""
    run = load_run("configs/prior_autoregressive.py")
    whole = count("autoregressive", run.model)
    encoder = count("autoregressive", run.model, "encoder/layers")
    decoder = count("autoregressive", run.model, "layers")
    assert encoder == pytest.approx(12 * 2048**2 * 24, rel=1e-3)
    assert decoder == pytest.approx(12 * 1664**2 * 24, rel=1e-3)
    assert whole == pytest.approx(encoder + decoder, rel=0.01)


@pytest.mark.parametrize("path", KARLO)
def test_karlos_models_have_their_published_sizes(path):
    run = load_run(path)
    assert count(run.stage, run.model) == KARLO[path]


def test_the_classifier_is_adms():
    run, released = load_run("configs/classifier.py"), "64x64_classifier.pt"
    assert count(run.stage, run.model) == FILES[released][0]
    adm = classifier_config(PUBLISHED[released].arguments)
    assert shapes("classifier", run.model) == shapes("classifier", adm)


@pytest.mark.parametrize("name", FILES)
def test_released_files_have_their_published_sizes(name):
    stage, arguments, _ = PUBLISHED[name]
    config, table = KINDS[stage.split("_")[0]]
    cfg, (parameters, tensors) = config(arguments), FILES[name]
    assert count(stage, cfg) == parameters
    if tensors:
        tree = unflatten(dict.fromkeys(shapes(stage, cfg)))
        assert sum(1 for row in table(cfg, tree) for _ in keys(row)) == tensors
