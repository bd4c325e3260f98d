"""The cascade: what a sample depends on, and what model directories refuse."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dalle2_jax.clip.contrastive import ClipConfig
from dalle2_jax.clip.image import ImageTowerConfig
from dalle2_jax.clip.text import TextTowerConfig
from dalle2_jax.components import (
    initial_params,
    load_component,
    save_component,
)
from dalle2_jax.config import plain
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.decoder.decoder import DecoderConfig
from dalle2_jax.decoder.upsampler import UpsamplerConfig
from dalle2_jax.diffusion.schedule import Noise
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.unet import UNetConfig
from dalle2_jax.prior.diffusion import PriorConfig
from dalle2_jax.unclip import (
    Sampling,
    generate,
    load,
    sample_prior,
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model directory of random networks that really depend on their inputs."""
    where = tmp_path_factory.mktemp("model")
    for stage, cfg in CFG.items():
        params = initial_params(stage, cfg, seed=3)
        rng = np.random.default_rng(0)
        loud = lambda x: x + 0.1 * rng.normal(size=x.shape).astype("f")  # noqa: B023,E731
        noise = None if stage == "clip" else plain(Noise())
        way = plain(Sampling(steps="4", guidance=2.0, clip=1.0))
        config = {"stage": stage, "model": plain(cfg), "noise": noise, "sampling": way}
        save_component(where, stage, config, jax.tree.map(loud, params))
    Tokenizer.train(CAPTIONS * 3, 600).save(where / "tokenizer")
    return where


def pictures(model, captions, batch, **more):  # noqa: D103
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
    from dalle2_jax.unclip import encode_captions, sample_keys

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


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(BadInput, match="is no model directory"):
        load(tmp_path)
    model = load(folder)._replace(prior=None)
    with pytest.raises(BadInput, match="holds no prior"):
        next(generate(model, ["x"]))
