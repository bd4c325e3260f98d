"""Losses of the priors on embeddings alone; what learns, and the stack behind it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.cli.overrides import load_run
from dalle2_jax.components import (
    Component,
    expected_shapes,
    initial_params,
)
from dalle2_jax.data.batches import captioned_batches
from dalle2_jax.data.labels import classes_of
from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.decoder.decoder import DecoderConfig
from dalle2_jax.diffusion.schedule import Noise
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.unet import UNetConfig
from dalle2_jax.prior.autoregressive import codes_of, with_codes
from dalle2_jax.prior.codes import quality
from dalle2_jax.shard.mesh import MeshConfig, make_mesh, to_devices
from dalle2_jax.train.losses import LOSSES, Embedded
from dalle2_jax.train.optim import optimizer
from dalle2_jax.train.prepare import fit_tables
from dalle2_jax.train.state import create_state
from dalle2_jax.train.step import jit_step
from dalle2_jax.unclip import (
    Caption,
    Sampling,
    UnCLIP,
    draw,
    encode_captions,
    encode_images,
    from_uint8,
    sample_keys,
    sample_prior,
)

RUNS = {
    "clip": (
        "clip.py",
        ["model.text.depth=1", "model.image.depth=1", "model.image.width=16"],
    ),
    "prior": (
        "prior_diffusion.py",
        ["model.width=32", "model.depth=1", "model.clip=8", "model.context=3"],
    ),
    "classifier": (
        "classifier.py",
        ["model.size=8", "model.unet.multiples=(1, 2)", "model.unet.attend=(2,)"],
    ),
    "autoregressive": (
        "prior_autoregressive.py",
        [
            "model.codes=6",
            "model.decoder.width=32",
            "model.buckets=16",
            "codes_from=99",
        ],
    ),
}
MESH = make_mesh(MeshConfig(1), jax.devices()[:1])


def run_of(stage, *changes):
    """A Run that compiles in seconds."""
    name, smaller = RUNS[stage]
    words = [f"--config.{word}" for word in ("batch=16", *smaller, *changes)]
    return load_run(f"configs/{name}:small", words)


@pytest.fixture(scope="module")
def world(shards):
    """(clip, tokenizer, host batches): a random CLIP over the generated pictures."""
    source = ShardSource(shards)
    tokenizer = Tokenizer.train(source.captions(), 700)
    cfg = run_of("clip", f"model.text.vocab={tokenizer.size}").model
    clip = Component(cfg, None, initial_params("clip", cfg, 0), {})
    data = run_of("autoregressive").data
    return clip, tokenizer, lambda: captioned_batches(source, tokenizer, data, 16, 0)


def trained(run, params, frozen, clip_cfg, batches, steps):
    """(EMA weights, losses) after some steps on one device."""
    tx = optimizer(run.optim, steps)
    state, losses = create_state(params, tx, MESH), []
    loss = LOSSES[run.stage](run, clip_cfg)
    step = jit_step(state, MESH, loss=loss, tx=tx, optim=run.optim)
    for batch, _ in zip(batches, range(steps)):
        given = to_devices(MESH, batch)
        state, metrics = step(state, frozen, given, jax.random.key(0))
        losses.append(float(metrics["loss"]))
    return jax.device_get(state.ema), losses


@pytest.fixture(scope="module")
def learned(world):
    """(run, first parameters, weights after 40 steps, losses): autoregressive prior."""
    clip, _, batches = world
    run, frozen = run_of("autoregressive"), {"clip": clip.params}
    first = initial_params("autoregressive", run.model, 0)
    first = fit_tables(run, clip.cfg, frozen, first, batches(), MESH)
    return run, first, *trained(run, first, frozen, clip.cfg, batches(), 40)


def test_the_autoregressive_prior_learns_the_codes_of_the_world(world, learned):
    run, first, params, losses = learned
    assert abs(losses[0] - np.log(16)) < 0.7
    assert np.mean(losses[-5:]) < losses[0] - 0.3
    for name in ("codes_mean", "codes_axes", "codes_centres", "dot_edges"):
        np.testing.assert_array_equal(params[name], first[name])  # not trained
    clip, _, batches = world
    z = encode_images(clip.cfg, clip.params, from_uint8(next(batches()).image))
    assert quality(codes_of(params), z)[1] < 0.3


def test_the_classifier_learns_the_colours_of_what_it_is_shown(shards):
    run = run_of("classifier", "optim.warmup=0", "noise.time_power=4.0")  # small t
    classes = classes_of(run.data.classes, run.model.unet.out_channels)
    source = ShardSource(shards, ("picture",), said=run.data.caption)
    batches = captioned_batches(source, classes, run.data, 16, 0)
    first = initial_params("classifier", run.model, 0)
    _, losses = trained(run, first, {}, None, batches, 60)
    assert abs(losses[0] - np.log(8)) < 0.5
    assert np.mean(losses[-10:]) < losses[0] - 0.5


def test_its_pictures_come_through_the_stack(world, learned):
    clip, tokenizer, _ = world
    run, _, params, _ = learned
    unet = UNetConfig(32, (1,), 1, (1,), head_width=16, context_width=16)
    cfg = DecoderConfig(8, unet, 64, text_width=64)
    rng = np.random.default_rng(0)
    weights = jax.tree.map(
        lambda x: x + 0.1 * rng.normal(size=x.shape).astype("f"),
        initial_params("decoder", cfg, 0),
    )
    model = UnCLIP(
        clip=clip,
        autoregressive=Component(run.model, None, params, {}),
        decoder=Component(cfg, Noise(), weights, {}),
        tokenizer=tokenizer,
    )
    tokens = tokenizer.encode(["a red ring", "a cross", "a red ring"], 20)
    keys = sample_keys(0, 0, 3).at[2].set(sample_keys(0, 0, 1)[0])
    how = {"decoder": Sampling("3", clip=1.0)}
    image = draw(model, tokens, keys, how)
    assert image.shape == (3, 8, 8, 3) and bool(jnp.isfinite(image).all())
    np.testing.assert_allclose(image[0], image[2], atol=1e-4)
    assert jnp.abs(image[0] - image[1]).max() > 1e-3
    other = {**how, "autoregressive": Sampling(guidance=2.0, temperature=3.0)}
    assert jnp.abs(draw(model, tokens, keys, other) - image).max() > 1e-3


@pytest.mark.parametrize("stage", ["prior", "autoregressive"])
def test_embeddings_give_the_loss_that_their_pictures_give(stage, world):
    clip, _, batches = world
    run = run_of(stage, "model.clip=64", "model.context=20")
    batch = next(batches())
    caption = encode_captions(clip.cfg, clip.params, batch.tokens)
    z = encode_images(clip.cfg, clip.params, from_uint8(batch.image))
    embedded = Embedded(z, caption.pooled, caption.states, caption.mask)
    params = initial_params(stage, run.model, 0)
    if stage == "autoregressive":
        params = with_codes(run.model, params, z, caption.pooled)
    key, frozen = jax.random.key(0), {"clip": clip.params}
    pictures = jax.jit(LOSSES[stage](run, clip.cfg))(params, frozen, batch, key)
    arrays = jax.jit(LOSSES[stage](run, None))(params, {}, embedded, key)
    np.testing.assert_allclose(arrays[0], pictures[0], rtol=1e-3)


def test_noise_turns_what_the_decoder_hears_and_leaves_its_length(world):
    clip, _, batches = world
    batch, found = next(batches()), []
    for noise in (0.0, 0.5):
        words = ["--config.model.clip=64", f"--config.corrupt.noise_image={noise}"]
        run = load_run("configs/decoder_64.py:small", words)
        prepare = LOSSES["decoder"](run, clip.cfg).prepare
        given = prepare({"clip": clip.params}, batch, jax.random.key(0)).given
        found.append(np.asarray(given.z_image))
    exact, noisy = found
    lengths = np.linalg.norm(exact, axis=1), np.linalg.norm(noisy, axis=1)
    np.testing.assert_allclose(*lengths, rtol=1e-5)
    cosines = np.sum(exact * noisy, axis=1) / lengths[0] ** 2
    assert abs(cosines.mean() - 1.25**-0.5) < 0.05 and cosines.std() > 0.005


def test_a_prior_is_trained_and_sampled_without_clip():
    """z_i is a turned copy of the one state that is not padding."""
    run = run_of("prior", "model.text_width=8", "optim.warmup=5")
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]

    def batches():
        while True:
            state = rng.normal(size=(32, 8))
            state /= np.linalg.norm(state, axis=1, keepdims=True)
            states = np.stack([state * 3, *rng.normal(size=(2, 32, 8))], axis=1)
            mask = np.array([[True, False, False]] * 32)
            made = (state @ turn, np.ones((32, 8)), states)
            yield Embedded(*(x.astype("f") for x in made), mask)

    first = initial_params("prior", run.model, 0)
    params, _ = trained(run, first, {}, None, batches(), 120)
    test = next(batches())
    caption = Caption(None, test.pooled, test.states, test.mask)
    static = {"noise": run.noise, "how": Sampling("8", candidates=1)}
    keys = sample_keys(0, 0, 32)
    z = sample_prior(params, caption, keys, cfg=run.model, **static)
    assert float(jnp.sum(z * test.z_image, -1).mean()) > 0.7


def test_codes_need_pictures_to_be_fitted_to():
    with pytest.raises(BadInput, match="config.codes_from is 3"):
        run_of("autoregressive", "codes_from=3")


def test_the_papers_sizes_are_those_of_table_3():
    run = load_run("configs/prior_autoregressive.py")
    sizes = expected_shapes("autoregressive", run.model)
    count = {
        part: sum(np.prod(s) for n, s in sizes.items() if n.startswith(part))
        for part in ("encoder/layers/", "layers/")
    }
    blocks = {"encoder/layers/": (24, 2048), "layers/": (24, 1664)}
    for part, (depth, width) in blocks.items():
        np.testing.assert_allclose(count[part], 12 * depth * width**2, rtol=2e-3)
    assert sizes["codes_axes"] == (319, 1024) and sizes["codes_centres"] == (319, 1024)
    assert sizes["positions"][0] <= 384
    assert (run.optim.rate, run.optim.beta2, run.optim.eps) == (1.6e-4, 0.91, 1e-10)
