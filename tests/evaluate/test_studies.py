"""The studies' parts on a small random model: what they depend on, what they refuse."""

import numpy as np
import pytest
from PIL import Image

from dalle2_jax.components import Component, initial_params
from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.aesthetics import Aesthetic
from dalle2_jax.evaluate.frechet import frechet_distance, moments
from dalle2_jax.evaluate.human_pairs import read_folder
from dalle2_jax.evaluate.prior_importance import (
    clip_retrieval,
    cosines,
    finding,
    frechet_error,
    prior_importance,
)
from dalle2_jax.evaluate.ratings import fit_ratings
from dalle2_jax.evaluate.routes import NAMED, SECOND, embedding, pictures, routes_of
from dalle2_jax.evaluate.sweep import Setting, guided_by, over_seeds, settings, sweep
from dalle2_jax.evaluate.wanted import of_shards, of_world
from dalle2_jax.evaluate.yardstick import METRICS, facts, scores, yardstick
from dalle2_jax.layers.transformer import TransformerConfig
from dalle2_jax.prior.autoregressive import AutoregressiveConfig, with_codes
from dalle2_jax.unclip import Sampling, generate

WAY = Sampling("2", guidance=2.0, clip=1.0)
HOW = dict.fromkeys(("prior", "decoder", "upsampler"), WAY)


@pytest.fixture(scope="module")
def measure(model):
    return yardstick(model, of_world("simple", 5, seed=1))


def test_the_full_stack_is_what_generate_draws(model, measure):
    captions = measure.wanted.captions
    z = embedding(model, "full_stack", captions, measure.z_real, 3, HOW)
    ours = pictures(model, "full_stack", captions, z, 3, HOW)
    theirs = np.concatenate(list(generate(model, captions, 3, how=HOW)))
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_every_route_is_judged_and_the_prior_has_cosines(model, measure):
    judged = prior_importance(model, measure, seed=3, how=HOW)
    assert list(judged) == routes_of(model) == [r for r in NAMED if r != SECOND]
    for found in judged.values():
        assert found.scores["n"] == 5 == len(found.pictures)
        assert set(found.scores["accuracy"]) == set(found.scores["standard_error"])
        assert 0 <= found.scores["recall"] <= 1
        assert found.scores["frechet"] == found.scores["frechet_clip"]
    near = cosines(measure, judged)
    assert list(near) == ["full_stack"]
    assert near["full_stack"]["data_to_caption"][0] == pytest.approx(
        np.mean(np.sum(measure.z_real * measure.z_text, -1)), abs=1e-6
    )
    assert clip_retrieval(measure)["captions"] == 5


def test_real_pictures_score_as_real_ones(measure):
    found = scores(measure, measure.wanted.images, [*METRICS][:4] + ["all_right"])
    assert found["frechet"] == pytest.approx(0, abs=1e-6)
    assert found["precision"] == found["recall"] == found["all_right"] == 1
    with pytest.raises(BadInput, match="give --ratings or --probe"):
        scores(measure, measure.wanted.images, ["aesthetic"])
    width = measure.z_real.shape[1]
    rated = measure._replace(aesthetic=Aesthetic(np.zeros(width), 4.5))
    assert scores(rated, measure.wanted.images, ["aesthetic"]) == {"aesthetic": 4.5}


def test_numbers_say_what_they_are_measured_with(measure):
    about = facts(measure, "frechet", {"model": "m"})
    assert about["n"] == 5 == about["reference"]["n"]
    assert about["features"] == "clip" and about["resize"] and about["samples"]
    assert "features" not in facts(measure, "all_right")
    other = of_world("simple", 5, seed=2).facts["sha256"]
    assert about["reference"]["sha256"] not in ("", other)


def test_a_sweep_visits_every_setting_with_its_scales(model, measure):
    chosen = settings(["full_stack", "caption_only"], (1.0, 3.0), (1.0, 2.0))
    assert len(chosen) == 4 + 2 and Setting("caption_only", None, 3.0) in chosen
    ways = guided_by(model, chosen[3], HOW)
    assert ways["prior"].guidance == 2 and ways["decoder"].guidance == 3
    assert guided_by(model, Setting("full_stack"), HOW) == HOW
    some = [Setting("full_stack", None, s) for s in (1.0, 3.0)]
    found = list(sweep(model, measure, some, (0, 1), ["clip_score"], HOW))
    assert [(one[0], one[1]) for one in found] == [(s, k) for s in some for k in (0, 1)]
    values = [one[2]["clip_score"] for one in found]
    assert len(set(values)) == 4
    mean, deviation = over_seeds(found)[some[0]]["clip_score"]
    assert mean == pytest.approx(np.mean(values[:2]))
    assert deviation == pytest.approx(np.std(values[:2], ddof=1))
    assert over_seeds(found[:1])[some[0]]["clip_score"] == (values[0], None)


def test_the_finding_is_computed():
    def made(distance, share, error=0.01):
        both = {"accuracy": {"all": share}, "standard_error": {"all": error}}
        return {"frechet": distance, "frechet_error": 0.01, **both}

    paper = ("full_stack", "text_embedding", "caption_only")
    found = dict(zip(paper, (made(0.1, 0.9), made(0.2, 0.7), made(0.3, 0.5))))
    near = {"to_image": (0.95, 0.1), "data_to_caption": (0.944, 0.1)}
    said = finding(found, near)
    assert said.count("as in the paper.") == 2 and "of 0.950 to" in said
    found["caption_only"] = made(0.15, 0.71)
    said = finding(found, near)
    assert "full stack 0.1 < caption only 0.15 < text embedding as z_i 0.2; the" in said
    assert "part caption only and text embedding as z_i" in said
    found["full_stack"], found["text_embedding"] = made(0.1, 0.7), made(0.2, 0.7)
    said = finding(found, near)
    assert "full stack 0.7 = text embedding as z_i 0.7" in said
    assert "as in the paper" not in said.split("right:")[1]
    unread = {route: {"frechet": d, "accuracy": {}} for route, d in zip(paper, "123")}
    unread = {
        route: dict(of, frechet=float(of["frechet"])) for route, of in unread.items()
    }
    assert "attributes" not in finding(unread, near)
    assert "part full stack and text embedding as z_i" in finding(unread, near)


def test_the_error_of_a_distance_is_what_repetition_shows():
    rng = np.random.default_rng(0)
    both = [rng.normal(size=(2, 300, 3)) + [[[0.5]], [[0]]] for _ in range(30)]
    again = np.std([frechet_distance(*map(moments, pair)) for pair in both])
    told = np.mean([frechet_error(*pair) for pair in both])
    assert told == pytest.approx(again, rel=0.35)


def autoregressive(model, seed=0):
    """A small random autoregressive prior that hears what the model's own one does."""
    clip, context, width = (
        getattr(model.prior.cfg, name) for name in ("clip", "context", "text_width")
    )
    towers = TransformerConfig(16, 1, 2), TransformerConfig(16, 1, 2)
    cfg = AutoregressiveConfig(clip, 6, 12, 5, context, width, *towers)
    z = np.random.default_rng(seed).normal(size=(2, 50, clip)).astype("f")
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    params = with_codes(cfg, initial_params("autoregressive", cfg, seed), *z)
    return Component(cfg, None, params, {})


def test_a_second_prior_is_a_route_of_its_own(model, measure):
    both = model._replace(autoregressive=autoregressive(model))
    assert routes_of(both)[:2] == ["full_stack", SECOND]
    assert routes_of(model._replace(prior=None)) == [*NAMED][2:]
    captions = measure.wanted.captions
    first, second = (
        embedding(both, route, captions, None, 3, HOW) for route in routes_of(both)[:2]
    )
    assert first.shape == second.shape and np.abs(first - second).max() > 0.01
    np.testing.assert_allclose(np.linalg.norm(second, axis=1), 1, rtol=1e-5)
    with pytest.raises(BadInput, match="holds no autoregressive"):
        embedding(model, SECOND, ["a"], None)
    way = guided_by(both, Setting(SECOND, 3.0), {})["autoregressive"]
    assert way.guidance == 3


def test_records_of_shards_are_wanted_in_their_order(shards):
    found = of_shards([str(shards[0])], 5, 16)
    assert found.images.shape == (5, 16, 16, 3) and len(found.captions) == 5
    assert found.specs is None is found.world
    with pytest.raises(BadInput, match="128 records; lower --n from 999"):
        of_shards([str(shards[0])], 999, 16)


def test_rated_pictures_are_encoded_by_the_models_clip(model, tmp_path):
    rng = np.random.default_rng(0)
    lines = ["image,rating"]
    for i in range(8):
        level = rng.integers(0, 256, 3, np.uint8)
        Image.fromarray(np.full((16, 16, 3), level, np.uint8)).save(
            tmp_path / f"{i}.png"
        )
        lines.append(f"{i}.png,{level.mean() / 25}")
    (tmp_path / "r.csv").write_text("\n".join(lines))
    probe, share, n = fit_ratings(model.clip, tmp_path / "r.csv")
    assert n == 8 and share <= 1 and len(probe.weight) == model.clip.cfg.clip
    np.save(tmp_path / "other.npy", rng.normal(size=(9, 6)))
    with pytest.raises(BadInput, match="width 5, this CLIP's have 16"):
        fit_ratings(model.clip, tmp_path / "other.npy")
    (tmp_path / "r.csv").write_text("image,rating\nnone.png,3\n")
    with pytest.raises(BadInput, match=r"none.png cannot be read"):
        fit_ratings(model.clip, tmp_path / "r.csv")


def test_folders_without_drawn_pictures_are_refused(tmp_path):
    with pytest.raises(BadInput, match="holds no picture of `dalle2 sample`"):
        read_folder(tmp_path)
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(BadInput, match=r"a\.png"):
        read_folder(tmp_path)
