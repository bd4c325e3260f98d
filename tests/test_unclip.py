"""The cascade: what a sample depends on, and what it does not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_model import CAPTIONS, CFG, loud, pictures

from dalle2_jax import cascade
from dalle2_jax.cli import sample
from dalle2_jax.components import initial_params
from dalle2_jax.diffusion.schedule import Noise
from dalle2_jax.diffusion.walk import SAMPLERS
from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.clip_score import rerank
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
    tokens = jnp.asarray(model.tokenizer.encode(CAPTIONS, model.clip.cfg.text.context))
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
    tokens = jnp.asarray(model.tokenizer.encode(CAPTIONS, model.clip.cfg.text.context))
    caption = encode_captions(cfg, model.clip.params, tokens)
    assert jnp.ptp(jnp.linalg.norm(caption.pooled, axis=-1)) > 1e-3
    condition = decoder_condition(caption, caption.pooled, cfg.unit)
    np.testing.assert_array_equal(condition.z_image, caption.pooled)


def test_uint8_rounds_once_half_up():
    x = jnp.array([-1.0, 1.0, 0.0, -1 + 0.5 / 127.5, 127 / 127.5 - 1])
    assert to_uint8(x).tolist() == [0, 255, 128, 1, 127]


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
    with pytest.raises(BadInput, match="give 2"):
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
        used = [part for name, part in params.items() if name != "image"]
        own = {x.shape for x in jax.tree.leaves(used) if x.size > 600}
        others = [getattr(model, s).params for s in seen if s != stage]
        foreign = {x.shape for x in jax.tree.leaves(others) if x.size > 600} - own
        assert own and foreign and own <= shapes | before and not foreign & shapes


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
