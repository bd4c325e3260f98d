"""The cascade: what a sample depends on, and what model directories refuse."""

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from dalle2_jax import cascade
from dalle2_jax.cli import sample
from dalle2_jax.cli.main import main
from dalle2_jax.cli.overrides import load_run
from dalle2_jax.cli.ways import FIELDS, JUDGES, changed_ways
from dalle2_jax.clip.contrastive import ClipConfig
from dalle2_jax.clip.image import ImageTowerConfig
from dalle2_jax.clip.noised import NoisedClipConfig
from dalle2_jax.clip.text import TextTowerConfig
from dalle2_jax.components import (
    initial_params,
    load_component,
    save_component,
)
from dalle2_jax.config import plain
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.decoder.classifier import ClassifierConfig
from dalle2_jax.decoder.decoder import DecoderConfig
from dalle2_jax.decoder.upsampler import UpsamplerConfig
from dalle2_jax.diffusion.schedule import Noise
from dalle2_jax.diffusion.walk import SAMPLERS
from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.clip_score import rerank
from dalle2_jax.layers.unet import UNetConfig
from dalle2_jax.manipulate.latent import imagine
from dalle2_jax.prior.diffusion import PriorConfig
from dalle2_jax.unclip import (
    Caption,
    Request,
    Sampling,
    UnCLIP,
    decoder_condition,
    encode_captions,
    generate,
    load,
    sample_keys,
    sample_prior,
    sample_upsampler,
    to_uint8,
)

UNET = UNetConfig(32, (1,), 1, (1,), head_width=16, context_width=16)
CFG = {
    "clip": ClipConfig(
        16,
        ImageTowerConfig(16, 8, 16, 1, 2),
        TextTowerConfig(600, 12, 16, 1, 2),
    ),
    "prior": PriorConfig(16, 32, 1, 2, context=12, text_width=16),
    "decoder": DecoderConfig(8, UNET, 16, text_width=16, spatial_map=2),
    "upsampler": UpsamplerConfig(
        16, dataclasses.replace(UNET, attend=(), context_width=0), factor=2
    ),
}
CAPTIONS = ["a red ring", "a small blue square", "a ring", "a cross", "two", "big"]


def loud(params):
    """Parameters with noise on them, so that every input is heard."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: x + 0.1 * rng.normal(size=x.shape).astype("f"), params
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model directory of random networks that really depend on their inputs."""
    where = tmp_path_factory.mktemp("model")
    for stage, cfg in CFG.items():
        params = initial_params(stage, cfg, seed=3)
        noise = None if stage == "clip" else plain(Noise())
        way = plain(Sampling(steps="4", guidance=2.0, clip=1.0))
        config = {"stage": stage, "model": plain(cfg), "noise": noise, "sampling": way}
        save_component(where, stage, config, loud(params))
    Tokenizer.train(CAPTIONS * 3, 600).save(where / "tokenizer")
    return where


def pictures(model, captions, batch, **more):
    return np.concatenate(list(generate(model, captions, 7, batch, **more)))


def test_a_sample_depends_on_its_caption_and_index_not_on_the_batch(folder):
    model = load(folder)
    whole = pictures(model, CAPTIONS, 6)
    assert whole.shape == (6, 16, 16, 3) and whole.dtype == np.uint8
    for batch in (1, 4):
        apart = np.abs(pictures(model, CAPTIONS, batch).astype(int) - whole)
        assert apart.max() <= 1  # other shapes, other sums: at most a rounding step
    other = pictures(model, ["a red ring"] + ["other"] * 5, 6)
    assert np.array_equal(other[0], whole[0]) and not np.array_equal(other[1], whole[1])


def test_a_sample_does_not_depend_on_the_number_of_devices(folder, monkeypatch):
    model, devices = load(folder), jax.local_devices()
    assert len(devices) == 8
    spread = pictures(model, CAPTIONS, 6)
    monkeypatch.setattr(jax, "local_devices", lambda: devices[:1])
    alone = pictures(model, CAPTIONS, 6)
    assert np.abs(spread.astype(int) - alone).max() <= 1


def test_every_route_of_z_image_is_another_picture(folder):
    model = load(folder)
    z = np.eye(16, dtype="f")[:2]
    made = [
        pictures(model, CAPTIONS[:2], 2, route=route, z_image=z)
        for route in ("prior", "text", "none", "image")
    ]
    for i, one in enumerate(made):
        assert not any(np.array_equal(one, other) for other in made[i + 1 :])


def test_prior_returns_unit_vectors_closer_than_a_single_draw(folder):
    model = load(folder)
    tokens = jnp.asarray(model.tokenizer.encode(CAPTIONS, 12))
    caption = encode_captions(model.clip.cfg, model.clip.params, tokens)
    how = Sampling(steps="4")
    z = sample_prior(
        model.prior.params,
        caption,
        sample_keys(0, 0, 6),
        cfg=model.prior.cfg,
        noise=Noise(),
        how=how,
    )
    np.testing.assert_allclose(jnp.linalg.norm(z, axis=-1), 1, rtol=1e-5)


def test_a_prior_alone_takes_any_conditioning_sequence():
    cfg = PriorConfig(8, 32, 1, 2, context=5, text_width=6)
    params, keys = initial_params("prior", cfg, 0), sample_keys(0, 0, 3)
    k_pooled, k_states = jax.random.split(jax.random.key(1))
    given = Caption(
        None,
        jax.random.normal(k_pooled, (3, 8)),
        jax.random.normal(k_states, (3, 5, 6)),
        jnp.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]], bool),
    )
    static = {"cfg": cfg, "noise": Noise(predicts="x0"), "how": Sampling("4", 2.0)}
    z = sample_prior(params, given, keys, **static)
    np.testing.assert_allclose(jnp.linalg.norm(z, axis=-1), 1, rtol=1e-5)
    other = given._replace(states=given.states.at[1, 2:].set(7.0))  # behind the mask
    np.testing.assert_allclose(
        sample_prior(params, other, keys, **static), z, atol=1e-5
    )
    heard = given._replace(states=given.states.at[1, 1:].set(7.0))
    apart = jnp.abs(sample_prior(params, heard, keys, **static) - z).max(-1)
    assert apart[1] > 1e-3 and apart[0] < 1e-5 and apart[2] < 1e-5


def test_the_last_step_of_the_upsampler_may_have_its_own_network(folder, tmp_path):
    model, keys = load(folder), sample_keys(0, 0, 2)
    part, other = model.upsampler, initial_params("upsampler", CFG["upsampler"], seed=9)
    low = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), minval=-1)
    static = {"cfg": part.cfg, "noise": part.noise}

    def walk(params, steps, last):
        how = Sampling(steps=steps)
        return sample_upsampler(params, low, keys, **static, how=how, last=last)

    plain_walk = walk(part.params, "4", None)
    np.testing.assert_allclose(
        walk(part.params, "4", part.params), plain_walk, atol=1e-5
    )
    assert jnp.abs(walk(part.params, "4", other) - plain_walk).max() > 1e-3
    np.testing.assert_allclose(
        walk(part.params, "1", other), walk(other, "1", None), atol=1e-5
    )
    with pytest.raises(BadInput, match="upsampler_last"):
        (tmp_path / "upsampler_last").symlink_to(folder / "upsampler")
        load(tmp_path)


def test_a_second_upsampler_comes_after_the_first(folder):
    model = load(folder)
    twice = model._replace(upsampler_2=model.upsampler)
    assert pictures(twice, CAPTIONS[:2], 2).shape == (2, 32, 32, 3)


def test_guidance_may_contrast_with_the_empty_caption(folder):
    model, count = load(folder), 2
    usual = pictures(model, CAPTIONS[:count], count)
    ways = {s: Sampling("4", 2.0, clip=1.0, empty=True) for s in ("prior", "decoder")}
    for stage, way in ways.items():
        other = pictures(model, CAPTIONS[:count], count, how={stage: way})
        assert not np.array_equal(other, usual)
    # in front of the empty caption itself there is no contrast, whatever the scale
    weak, strong = (dataclasses.replace(ways["prior"], guidance=g) for g in (2.0, 9.0))
    blank = [pictures(model, [""], 1, how={"prior": way}) for way in (weak, strong)]
    assert np.abs(blank[0].astype(int) - blank[1]).max() <= 1


def test_embeddings_of_clips_that_are_not_normalised_stay_as_they_are(folder):
    model = load(folder)
    cfg = dataclasses.replace(model.clip.cfg, unit=False)
    tokens = jnp.asarray(model.tokenizer.encode(CAPTIONS, 12))
    caption = encode_captions(cfg, model.clip.params, tokens)
    assert jnp.ptp(jnp.linalg.norm(caption.pooled, axis=-1)) > 1e-3
    condition = decoder_condition(caption, caption.pooled, cfg.unit)
    np.testing.assert_array_equal(condition.z_image, caption.pooled)


def test_uint8_rounds_once_half_up():
    x = jnp.array([-1.0, 1.0, 0.0, -1 + 0.5 / 127.5, 127 / 127.5 - 1])
    assert to_uint8(x).tolist() == [0, 255, 128, 1, 127]


def test_a_component_comes_back_whole_even_from_strided_arrays(tmp_path):
    cfg = CFG["prior"]
    params = initial_params("prior", cfg, 0)
    strided = jax.tree.map(lambda x: np.asfortranarray(x), params)
    save_component(tmp_path, "prior", {"model": plain(cfg)}, strided)
    found = load_component(tmp_path, "prior")
    assert found.cfg == cfg and found.noise is None
    jax.tree.map(np.testing.assert_array_equal, params, found.params)


def test_damaged_components_are_named(folder, tmp_path):
    def broken(change):
        part = tmp_path / "upsampler"
        part.mkdir(exist_ok=True)
        weights = load_file(folder / "upsampler" / "model.safetensors")
        config = json.loads((folder / "upsampler" / "config.json").read_text())
        change(weights, config)
        save_file(weights, part / "model.safetensors")
        (part / "config.json").write_text(json.dumps(config))
        with pytest.raises(BadInput) as caught:
            load_component(tmp_path, "upsampler")
        return str(caught.value)

    name = "unet/stem/kernel"
    assert f"lacks {name}" in broken(lambda w, c: w.pop(name))
    assert "holds extra" in broken(lambda w, c: w.update(extra=w[name]))
    assert f"{name} is (1, 3)" in broken(
        lambda w, c: w.update({name: np.zeros((1, 3), "f")})
    )
    assert "did you mean 'factor'" in broken(lambda w, c: c["model"].update(facto=4))
    path = tmp_path / "upsampler" / "model.safetensors"
    json_path = tmp_path / "upsampler" / "config.json"
    json_path.write_text((folder / "upsampler" / "config.json").read_text())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadInput, match="cannot be read"):
        load_component(tmp_path, "upsampler")


def test_one_flipped_bit_of_the_weights_is_noticed(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    part = tmp_path / "upsampler"
    weights = part / "model.safetensors"
    assert main(["inspect", str(tmp_path), "--verify"]) == 0
    assert "upsampler: intact" in capsys.readouterr().out
    there = bytearray(weights.read_bytes())
    there[-100] ^= 1
    weights.write_bytes(there)
    with pytest.raises(BadInput, match="is damaged: its SHA-256 is not that of"):
        load_component(tmp_path, "upsampler")
    assert main(["inspect", str(tmp_path), "--verify"]) == 2
    assert "upsampler/model.safetensors is damaged" in capsys.readouterr().err
    (part / "model.safetensors.sha256").unlink()
    load_component(tmp_path, "upsampler")


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(BadInput, match="is no model directory"):
        load(tmp_path)
    model = load(folder)._replace(prior=None)
    with pytest.raises(BadInput, match="holds no prior"):
        next(generate(model, ["x"]))


def test_more_steps_than_stages_are_refused(folder):
    with pytest.raises(BadInput, match="has 5 values; the stages are prior, decoder"):
        sample.ways(load(folder), "1/2/3/4/5", None)


def test_embeddings_of_the_prior_lead_to_the_same_pictures(folder):
    model = load(folder)
    z = np.asarray(imagine(model, CAPTIONS, sample_keys(7, 0, 6)))
    assert z.shape == (6, 16) and z.dtype == np.float32
    through = pictures(model, CAPTIONS, 4, route="image", z_image=z)
    apart = through.astype(int) - pictures(model, CAPTIONS, 4)
    assert np.abs(apart).max() <= 1  # other shapes, other sums: at most a rounding step


@pytest.mark.parametrize("sampler", SAMPLERS[1:3])
def test_every_stage_may_have_its_own_sampler(folder, sampler):
    model = load(folder)
    how = sample.ways(model, None, None, f"{sampler}/{sampler}")
    assert (how["prior"].sampler, how["upsampler"].sampler) == (sampler, "ancestral")
    made = pictures(model, CAPTIONS[:2], 2, how=how)
    assert np.abs(made.astype(int) - pictures(model, CAPTIONS[:2], 2)).max() > 0


def test_the_closest_pictures_are_kept(folder):
    model = load(folder)
    wanted = [c for c in CAPTIONS[:2] for _ in range(3)]
    made = pictures(model, wanted, 6)
    numbers, cosines = rerank(model, made, wanted, 3, 2)
    assert [n // 3 for n in numbers] == [0, 0, 1, 1]
    assert cosines[0] >= cosines[1] and cosines[2] >= cosines[3]
    everything, _ = rerank(model, made, wanted, 3, 3)
    assert sorted(everything) == list(range(6))


def sampled(folder, tmp_path, *words):
    """The exit code of `dalle2 sample`, and its folder."""
    out = tmp_path / "out"
    base = ["sample", "--model", str(folder), "--out", str(out), "--steps", "2/2/2"]
    return main([*base, *words]), out


def test_stages_run_one_by_one_give_the_pictures_of_the_whole(folder, tmp_path):
    assert sampled(folder, tmp_path / "a", "a ring", "big")[0] == 0
    code, first = sampled(folder, tmp_path / "b", "a ring", "big", "--stages", "prior")
    assert code == 0
    rest = ["--stages", "decoder,upsampler", "--embeddings", str(first / "z_i.npy")]
    assert sampled(folder, tmp_path / "c", "a ring", "big", *rest)[0] == 0
    for name in ("00000.png", "00001.png"):
        one, two = (Image.open(tmp_path / d / "out" / name) for d in "ac")
        apart = np.asarray(one).astype(int) - np.asarray(two)
        assert np.abs(apart).max() <= 1
    words = ["a ring", "--stages", "prior,decoder"]
    assert Image.open(sampled(folder, tmp_path, *words)[1] / "00000.png").size == (8, 8)


def test_captions_from_a_file_reranked(folder, tmp_path):
    (tmp_path / "lines.txt").write_text("a ring\n\na cross\n")
    lines = ["--captions-file", str(tmp_path / "lines.txt"), "--n", "3", "--keep", "1"]
    code, out = sampled(folder, tmp_path, *lines)
    assert code == 0 and len(list(out.glob("0*.png"))) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a", "--stages", "prior,upsampler"], "no stages in a row"),
        (["a", "--stages", "decoder"], "--embeddings takes the place of the prior"),
        (["a", "--keep", "2"], "--keep 2 must lie between 1 and --n 1"),
        (["a", "--sampler", "euler"], "sampler must be one of ancestral, ddim"),
        (["a", "--sampler", "analytic"], "needs the mean square of the network's eps"),
        (["a " * 40, "--no-cut"], "shorten it, or leave out --no-cut"),
        (["a", "--steps", "2/2000"], "--steps '2000': 2000 sampling steps do not fit"),
        (["a", "--preset", "fast"], "--preset fast is none of paper, karlo"),
        (["a", "--dtype", "float8"], "dtype must be one of float32, bfloat16"),
        (["a", "--interval", "/0.9:0.1"], "interval must lie in 0 to 1"),
        (["a", "--interval", "/0.9"], "--interval '0.9': write it as LOW:HIGH"),
        (
            ["a", "--guidance", "1/inf"],
            "--guidance 'inf': guidance is inf",
        ),
        (["a", "--clip-guidance", "nan"], "--clip-guidance: clip_guidance is nan"),
        (["a", "--clip-guidance", "1"], "the model holds no noised_clip"),
        (["a", "--decoder-caption", "b", "--decoder-caption", "c"], "once or 1"),
        (["a", "--memory", "-1"], "--memory must be above 0 GiB"),
        ([" "], "no caption given"),
        ([""], "no caption given"),
    ],
)
def test_bad_usage_of_sample_is_one_sentence(words, said, folder, tmp_path, capsys):
    code, out = sampled(folder, tmp_path, *words)
    heard = capsys.readouterr().err.strip()
    assert code == 2 and said in heard and "\n" not in heard


def test_a_long_caption_is_cut_with_a_warning(folder, tmp_path, capsys):
    assert sampled(folder, tmp_path, "a " * 40)[0] == 0
    assert "its end is cut off" in capsys.readouterr().err


def test_a_model_is_loaded_and_draws_in_two_calls(folder):
    model = UnCLIP.load(folder)
    made = model.generate(CAPTIONS, seed=7)
    np.testing.assert_array_equal(made, pictures(load(folder), CAPTIONS, 64))


def test_weights_of_sixteen_bits_give_almost_the_same_pictures(folder):
    model, short = UnCLIP.load(folder), UnCLIP.load(folder, "bfloat16")
    kinds = {str(x.dtype) for x in jax.tree.leaves(short.decoder.params) if x.ndim > 1}
    assert kinds == {"bfloat16"} and short.decoder.cfg.unet.dtype == "bfloat16"
    whole = model.generate(CAPTIONS, 7).astype(int)
    rounded, other = short.generate(CAPTIONS, 7), model.generate(CAPTIONS, 8)
    assert np.abs(rounded - whole).mean() < np.abs(other - whole).mean() / 4
    with pytest.raises(BadInput, match="dtype must be one of float32, bfloat16"):
        UnCLIP.load(folder, "float8")


def test_a_sample_does_not_depend_on_the_order_of_the_others(folder):
    model, order = load(folder), [3, 0, 5, 1, 4, 2]
    z = np.asarray(imagine(model, CAPTIONS, sample_keys(7, 0, 6)))
    whole = pictures(model, CAPTIONS, 6, route="image", z_image=z).astype(int)
    for place in order[:2]:  # alone, under its own number
        request = Request([CAPTIONS[place]], first=place)
        alone = pictures(model, request, 1, route="image", z_image=z[place : place + 1])
        assert np.abs(alone[0] - whole[place]).max() <= 1
        through = pictures(model, request, 1)
        assert np.abs(through[0].astype(int) - whole[place]).max() <= 1


def test_the_decoder_may_hear_another_caption_than_the_prior(folder):
    model, count = load(folder), 2
    usual = pictures(model, CAPTIONS[:count], count)
    same = Request(CAPTIONS[:count], decoder_captions=CAPTIONS[:count])
    assert np.array_equal(pictures(model, same, count), usual)
    heard = Request(CAPTIONS[:count], decoder_captions=["a cross", CAPTIONS[1]])
    made = pictures(model, heard, count)
    assert not np.array_equal(made[0], usual[0]) and np.array_equal(made[1], usual[1])
    z = np.asarray(imagine(model, CAPTIONS[:count], sample_keys(7, 0, count)))
    there = pictures(model, ["a cross", CAPTIONS[1]], count, route="image", z_image=z)
    assert np.abs(there.astype(int) - made).max() <= 1  # the prior heard the first ones
    with pytest.raises(BadInput, match="2 captions need as many decoder captions"):
        pictures(model, same._replace(decoder_captions=["one"]), count)


def test_only_the_running_stage_is_on_the_devices(folder):
    model, seen = load(folder), {}

    def tell(stage, done):
        leaves = [x for x in jax.live_arrays() if jnp.issubdtype(x.dtype, jnp.floating)]
        seen[stage] = {x.shape for x in leaves} - before

    before = {x.shape for x in jax.live_arrays()}
    pictures(model, CAPTIONS, 6, tell=tell)
    assert list(seen) == ["clip", "prior", "decoder", "upsampler"]
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(model.decoder.params))
    for stage, shapes in seen.items():
        params = getattr(model, stage).params
        own = {x.shape for x in jax.tree.leaves(params) if x.size > 600}
        own -= {x.shape for x in jax.tree.leaves(params.get("image", {}))}
        others = [getattr(model, s).params for s in seen if s != stage]
        foreign = {x.shape for x in jax.tree.leaves(others) if x.size > 600} - own
        assert own <= shapes | before and not foreign & shapes


def test_the_host_calls_each_stage_once_whatever_its_steps(folder, monkeypatch):
    model, calls = load(folder), []
    call = cascade.Work.__call__

    def counted(work, given, keys):
        calls.append(work.stage)
        return call(work, given, keys)

    monkeypatch.setattr(cascade.Work, "__call__", counted)
    pictures(model, CAPTIONS, 6)  # four steps in every stage
    assert calls == ["clip", "prior", "decoder", "upsampler"]


def test_upsamplers_take_pictures_of_any_size(folder):
    cfg = dataclasses.replace(
        CFG["upsampler"],
        unet=dataclasses.replace(CFG["upsampler"].unet, multiples=(1, 1, 1)),
    )
    params = loud(initial_params("upsampler", cfg, 0))
    low = jax.random.uniform(jax.random.key(0), (1, 5, 7, 3), minval=-1)
    static = {"cfg": cfg, "noise": Noise(), "how": Sampling("2")}
    made = sample_upsampler(params, low, sample_keys(0, 0, 1), **static)
    assert made.shape == (1, 10, 14, 3) and bool(jnp.all(jnp.isfinite(made)))


def grown(folder, where):
    """The model directory with a noise-aware CLIP and a classifier beside."""
    shutil.copytree(folder, where)
    unet = dataclasses.replace(UNET, context_width=0, out_channels=5)
    image = ImageTowerConfig(8, 4, 16, 1, 2)
    parts = {
        "noised_clip": NoisedClipConfig(16, image, CFG["clip"].text, scale=20.0),
        "classifier": ClassifierConfig(8, unet),
    }
    for stage, cfg in parts.items():
        params = loud(initial_params(stage, cfg, seed=4))
        save_component(where, stage, {"stage": stage, "model": plain(cfg)}, params)
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
    base = ["sample", "--model", str(tmp_path / "model"), "--out", str(out), "a ring"]
    base += ["--steps", "1/3/1"]
    both = ["--clip-guidance", "2", "--classifier-guidance", "1", "--label", "2"]
    assert main([*base, *both]) == 0
    facts = json.loads(Image.open(out / "00000.png").info["dalle2"])
    assert (facts["clip_guidance"], facts["label"], facts["seed"]) == (2.0, 2, 0)
    assert main([*base, *both[:4]]) == 2
    assert "needs a class; give --label N" in capsys.readouterr().err


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


def test_the_noised_clip_for_the_quickstart_sees_what_its_decoder_draws():
    judge = load_run("configs/clip.py:noised_small")
    for variant in ("small", "small_paper", "pairs", "pairs_paper", "emoji"):
        decoder = load_run(f"configs/decoder_64.py:{variant}")
        assert judge.model.image.size == decoder.model.size
        for name in ("schedule", "steps"):
            assert getattr(judge.noise, name) == getattr(decoder.noise, name)


def test_every_field_of_sampling_has_a_flag(folder, tmp_path):
    values = {"steps": "2/2/2", "guidance": "/2", "sampler": "/ddim", "eta": "/0.5"}
    values |= {"bound": "2/1", "threshold": "/0.9", "interval": "/0.1:0.9"}
    values |= {"rescale": "/0.7", "candidates": "3", "temperature": "1"}
    values |= {"percentile": "40"}
    assert set(values) == set(FIELDS)
    how = changed_ways(load(folder), values)
    first, second = how["prior"], how["decoder"]
    assert (first.candidates, first.percentile, first.clip) == (3, 40.0, 2.0)
    assert (second.sampler, second.eta, second.threshold) == ("ddim", 0.5, 0.9)
    assert (second.interval, second.rescale, second.guidance) == ((0.1, 0.9), 0.7, 2.0)
    named = {field for field, _, _ in FIELDS.values()} | set(JUDGES) | {"empty"}
    assert named == {field.name for field in dataclasses.fields(Sampling)}
    flags = [word for flag, text in values.items() for word in (f"--{flag}", text)]
    assert sampled(folder, tmp_path, "a ring", *flags)[0] == 0


def test_a_picture_tells_where_it_comes_from(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("a ring\n\nbig\n"))
    words = ["-", "--n", "2", "--seed", "3", "--guidance", "/2", "--batch", "2"]
    code, out = sampled(folder, tmp_path, *words, "--decoder-caption", "two")
    assert code == 0 and len(list(out.glob("0*.png"))) == 4
    with Image.open(out / "00003.png") as image:
        facts, xmp = json.loads(image.info["dalle2"]), image.info["XML:com.adobe.xmp"]
        assert "digitalsourcetype/trainedAlgorithmicMedia" in xmp
    expected = {"caption": "big", "decoder_caption": "two", "seed": 3, "sample": 3}
    expected |= {"model": folder.name, "steps": "2/2/2", "guidance": "/2"}
    assert facts.items() >= expected.items()
    usual = {
        "steps": "2",
        "guidance": 2.0,
        "clip": 1.0,
    }  # the model's own are told, too
    assert facts["sampling"] == dict.fromkeys(("prior", "decoder", "upsampler"), usual)
    assert Image.open(out / "grid.png").size[0] > 4 * 128


def test_damaged_model_directories_end_in_one_sentence(folder, tmp_path, capsys):
    base = ["sample", "a", "--out", str(tmp_path / "out"), "--model"]
    model = tmp_path / "model"
    shutil.copytree(folder, model)
    weights = model / "decoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert main([*base, str(model)]) == 2
    shutil.rmtree(model / "decoder")
    assert main([*base, str(model)]) == 2
    shutil.rmtree(model / "tokenizer")
    assert main([*base, str(model)]) == 2
    assert main([*base, str(tmp_path / "nowhere")]) == 2
    heard = capsys.readouterr().err.strip().splitlines()
    said = ["cannot be read", "holds no decoder", "tokenizer", "is no model directory"]
    assert len(heard) == 4 and all(part in line for part, line in zip(said, heard))


def test_a_second_process_compiles_nothing(folder, tmp_path):
    cache = tmp_path / "cache"
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache), "XLA_FLAGS": ""}
    env |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    words = ["sample", "a ring", "--model", str(folder), "--steps", "2/2/2"]
    found = []
    for name in "ab":
        out = str(tmp_path / name)
        command = [sys.executable, "-m", "dalle2_jax.cli.main", *words, "--out", out]
        subprocess.run(command, env=env, check=True, capture_output=True)
        found.append({p.name for p in cache.rglob("*") if not p.name.endswith("atime")})
    assert len(found[0]) > 3 and found[0] == found[1]
    one, two = (np.asarray(Image.open(tmp_path / d / "00000.png")) for d in "ab")
    np.testing.assert_array_equal(one, two)
