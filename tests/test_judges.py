"""Gradients of a noise-aware CLIP and of a classifier, through the whole cascade."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from small_model import CAPTIONS, CFG, UNET, loud, pictures

from dalle2_jax.cli.main import main
from dalle2_jax.cli.overrides import load_run
from dalle2_jax.clip.image import ImageTowerConfig
from dalle2_jax.clip.noised import NoisedClipConfig
from dalle2_jax.components import initial_params, save_component
from dalle2_jax.config import plain
from dalle2_jax.data.shapes import SHAPES
from dalle2_jax.decoder.classifier import ClassifierConfig
from dalle2_jax.diffusion.schedule import Noise
from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.judges import labels_of
from dalle2_jax.evaluate.wanted import of_world
from dalle2_jax.layers.unet import UNetConfig
from dalle2_jax.unclip import Request, Sampling, load

LABELS = {"caption": "things.0.shape", "classes": SHAPES}


def grown(folder, where):
    """The model directory with a noise-aware CLIP and a classifier beside."""
    shutil.copytree(folder, where)
    unet = UNetConfig(**UNET, attend=(1,), head_width=4, out_channels=5)
    image = ImageTowerConfig(8, 4, 16, 1, 2)
    parts = {
        "noised_clip": NoisedClipConfig(16, image, CFG["clip"].text, scale=20.0),
        "classifier": ClassifierConfig(8, unet),
    }
    for stage, cfg in parts.items():
        params = loud(initial_params(stage, cfg, seed=4))
        config = {"stage": stage, "model": plain(cfg), "data": LABELS}
        save_component(where, stage, config, params)
    return where


def test_judges_are_heard_sample_by_sample(folder, tmp_path, capsys):
    model = load(grown(folder, tmp_path / "model"))
    alone, made = model._replace(upsampler=None), []
    for judge in ({}, {"classifier_guidance": 500.0}, {"clip_guidance": 500.0}):
        how = {"decoder": Sampling("3", clip=1.0, **judge)}
        request = Request(CAPTIONS[:4], labels=[0, 1, 2, 3])
        made.append(pictures(alone, request, 4, how=how))
    plain, labelled, heard = made
    assert not np.array_equal(plain, labelled) and not np.array_equal(plain, heard)
    how = {"decoder": Sampling("3", clip=1.0, classifier_guidance=500.0)}
    other = pictures(alone, request._replace(labels=[0, 1, 2, 4]), 4, how=how)
    assert np.array_equal(other[:3], labelled[:3])
    assert not np.array_equal(other[3], labelled[3])
    out = tmp_path / "out"
    base = [
        "sample",
        "--overwrite",
        "--model",
        str(tmp_path / "model"),
        "--out",
        str(out),
        "a ring",
    ]
    base += ["--steps", "1/3/1"]
    both = ["--clip-guidance", "2", "--classifier-guidance", "1", "--label", "triangle"]
    assert main([*base, *both]) == 0
    facts = json.loads(Image.open(out / "00000.png").info["dalle2"])
    assert (facts["clip_guidance"], facts["label"], facts["seed"]) == (2.0, 2, 0)
    assert main([*base, *both[:4]]) == 2
    assert "needs a class; give --label N" in capsys.readouterr().err
    assert main([*base, *both[:4], "--label", "5"]) == 2
    said = f"is no class of this classifier, which knows {', '.join(SHAPES)} (0 to 4)."
    assert said in capsys.readouterr().err
    assert main([*base, *both[:4], "--label", "2"]) == 0


def test_a_noise_aware_clip_guides_to_the_caption_whatever_the_decoder_is_told(
    folder, tmp_path
):
    model = load(grown(folder, tmp_path / "model"))._replace(upsampler=None)
    how = {"decoder": Sampling("3", clip=1.0, clip_guidance=500.0)}
    made = []
    for caption in CAPTIONS[:2]:  # the same z_i, the same words for the decoder
        request, z = Request([caption], decoder_captions=[""]), np.ones((1, 16)) / 4
        given = {"how": how, "route": "image", "z_image": z.astype("f")}
        made.append(pictures(model, request, 1, **given))
    assert not np.array_equal(*made)


def test_a_judge_of_other_noise_is_refused(folder, tmp_path):
    model = load(grown(folder, tmp_path / "model"))
    how = {"decoder": Sampling("3", clip_guidance=1.0)}
    judge = model.noised_clip._replace(noise=Noise("linear"))
    with pytest.raises(BadInput, match="trained with linear noise of 1000 steps"):
        pictures(model._replace(noised_clip=judge), CAPTIONS[:1], 1, how=how)


def test_what_judges_draw_alone_is_counted(folder, tmp_path, capsys):
    model, out = grown(folder, tmp_path / "model"), tmp_path / "out"
    words = ["study", "judges", "--n", "4", "--steps", "2/2/2", "--out", str(out)]
    words += ["--world", "simple", "--scales", "0,500", "--model"]
    assert main([*words, str(model)]) == 0
    assert "classifier" in capsys.readouterr().out and (out / "judges.png").is_file()
    rows = json.loads((out / "judges.json").read_text())["rows"]
    assert [(row["judge"], row["scale"]) for row in rows] == [
        ("noised_clip", 0.0),
        ("noised_clip", 500.0),
        ("classifier", 0.0),
        ("classifier", 500.0),
    ]
    assert all(0 <= row["accuracy"]["shape"] <= 1 and row["n"] == 4 for row in rows)
    specs, part = of_world("simple", 4).specs, load(model).classifier
    shapes = [spec.things[0].shape for spec in specs]
    assert labels_of(part, specs) == [SHAPES.index(shape) for shape in shapes]
    with pytest.raises(BadInput, match="learned unknown labels .0, 1, 2, 3, 4., and"):
        labels_of(part._replace(config={}), specs)
    assert main([*words, str(folder)]) == 2
    assert "holds no judge: noised_clip or classifier" in capsys.readouterr().err


def test_the_noised_clip_for_the_quickstart_sees_what_its_decoder_draws():
    judge = load_run("configs/clip.py:noised_small")
    for variant in ("small", "small_paper", "emoji"):
        decoder = load_run(f"configs/decoder_64.py:{variant}")
        assert judge.model.image.size == decoder.model.size
        for name in ("schedule", "steps"):
            assert getattr(judge.noise, name) == getattr(decoder.noise, name)
