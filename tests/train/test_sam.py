"""Sharpness-aware minimisation against the formula spelt out, and on many devices."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.cli.overrides import load_run
from dalle2_jax.clip.contrastive import ClipConfig, contrastive_loss, normalised
from dalle2_jax.clip.image import ImageTowerConfig
from dalle2_jax.clip.text import TextTowerConfig
from dalle2_jax.components import initial_params
from dalle2_jax.data.batches import Captioned
from dalle2_jax.errors import BadInput
from dalle2_jax.shard.mesh import MeshConfig, make_mesh, to_devices
from dalle2_jax.train.losses import LOSSES
from dalle2_jax.train.optim import SAM_AXIS, Sam, gradient, optimizer
from dalle2_jax.train.run import Optim
from dalle2_jax.train.state import create_state
from dalle2_jax.train.step import jit_step

RHO = 0.1
IMAGE = ImageTowerConfig(16, 8, 16, 1, 2)
KEY = jax.random.key(0)


def quadratic(params, frozen, batch, key):
    """Mean of (w x + b - y)^2 / 2 over examples."""
    off = batch["x"] @ params["w"] + params["b"] - batch["y"]
    return jnp.mean(off**2) / 2, {"off": jnp.mean(off)}


def line(rng):
    params = {"w": rng.normal(size=3).astype("f"), "b": np.float32(0.3)}
    x, y = rng.normal(size=(8, 3)).astype("f"), rng.normal(size=8).astype("f")
    return params, {"x": x, "y": y}


def by_hand(w, b, x, y):
    """The quadratic's gradient."""
    off = x @ w + b - y
    return off @ x / len(x), off.mean()


def test_each_group_of_a_mean_loss_climbs_its_own_gradient():
    params, batch = line(np.random.default_rng(0))
    expected = []
    for x, y in zip(np.split(batch["x"], 4), np.split(batch["y"], 4)):
        dw, db = by_hand(params["w"], params["b"], x, y)
        up = RHO / np.sqrt(np.sum(dw**2) + db**2)
        expected.append(by_hand(params["w"] + up * dw, params["b"] + up * db, x, y))
    (value, metrics), grads = jax.jit(gradient(quadratic, Sam(RHO, 2)))(
        params, {}, batch, KEY
    )
    off = batch["x"] @ params["w"] + params["b"] - batch["y"]
    np.testing.assert_allclose(value, np.mean(off**2) / 2, rtol=1e-5)
    np.testing.assert_allclose(metrics["off"], off.mean(), rtol=1e-5)
    np.testing.assert_allclose(grads["w"], np.mean([g[0] for g in expected], 0), 1e-4)
    np.testing.assert_allclose(grads["b"], np.mean([g[1] for g in expected]), 1e-4)


def towers(params, frozen, batch, key, axis=SAM_AXIS):
    """A contrastive loss over two linear towers."""
    z = [normalised(batch[name] @ params[name]) for name in ("image", "text")]
    return contrastive_loss(*z, params["log_scale"], axis)


def ordinary(params, frozen, batch, key):
    """The contrastive loss without groups."""
    return towers(params, frozen, batch, key, axis=None)


@pytest.fixture
def pairs():
    rng = np.random.default_rng(1)
    params = {name: rng.normal(size=(5, 4)).astype("f") for name in ("image", "text")}
    batch = {name: rng.normal(size=(6, 5)).astype("f") for name in params}
    return {**params, "log_scale": np.float32(1.5)}, batch


def test_contrastive_groups_keep_the_negatives_of_the_whole_batch(pairs):
    """Against a loop: three groups of two, one embedding matrix, rows per group."""
    params, batch = pairs

    def whole(copies):
        z_image, z_text = (
            jnp.concatenate(
                [
                    normalised(batch[k][2 * i : 2 * i + 2] @ copies[i][k])
                    for i in (0, 1, 2)
                ]
            )
            for k in ("image", "text")
        )
        scales = jnp.repeat(jnp.stack([jnp.exp(c["log_scale"]) for c in copies]), 2)
        logits, total = z_image @ z_text.T, 0.0
        for i in range(6):
            rows = scales[i] * logits[i], scales[i] * logits[:, i]
            total += sum(jax.nn.logsumexp(row) - row[i] for row in rows)
        return total / 12

    slope = jax.jit(jax.grad(whole))
    local = slope([params] * 3)
    moved = []
    for g in local:
        length = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in g.values()))
        moved.append({k: params[k] + RHO * g[k] / length for k in g})
    expected = [sum(parts) for parts in zip(*map(dict.values, slope(moved)))]
    (value, metrics), grads = jax.jit(gradient(towers, Sam(RHO, 2)))(
        params, {}, batch, KEY
    )
    np.testing.assert_allclose(value, whole([params] * 3), rtol=1e-5)
    np.testing.assert_allclose(metrics["scale"], np.exp(1.5), rtol=1e-5)
    assert list(grads) == sorted(local[0])
    for name, ours in grads.items():
        theirs = expected[list(local[0]).index(name)]
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6, err_msg=name)


def test_without_a_perturbation_groups_change_nothing(pairs):
    params, batch = pairs
    split = jax.jit(gradient(towers, Sam(1e-12, 2)))(params, {}, batch, KEY)
    whole = jax.jit(gradient(ordinary))(params, {}, batch, KEY)
    for a, b in zip(jax.tree.leaves(split), jax.tree.leaves(whole)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_perturbation_of_other_groups_or_of_all_is_another_gradient(pairs):
    params, batch = pairs
    grads = [
        jax.jit(gradient(towers, Sam(RHO, n)))(params, {}, batch, KEY)[1]
        for n in (1, 2, 6)
    ]
    assert np.abs(grads[0]["image"] - grads[1]["image"]).max() > 1e-4
    assert np.abs(grads[1]["image"] - grads[2]["image"]).max() > 1e-4


def with_sam(sam):
    """Optim with a Sam in it."""
    return Optim(rate=0.01, ema=0.9, sam_rho=sam.rho, sam_group=sam.group)


def two_steps(loss, params, batch, mesh, sam=None):
    """The state and metrics after two updates."""
    tx = optimizer(Optim(rate=0.01), 10)
    state = create_state(params, tx, mesh)
    step = jit_step(state, mesh, loss=loss, tx=tx, optim=with_sam(sam or Sam()))
    for _ in range(2):
        state, metrics = step(state, {}, to_devices(mesh, batch), KEY)
    return jax.device_get((state.params, metrics))


def one_device():
    return make_mesh(MeshConfig(1), jax.devices()[:1])


def test_sharded_equals_unsharded(pairs):
    params, batch = pairs
    batch = {name: np.concatenate([x, x[:2] + 1] * 2) for name, x in batch.items()}
    one = two_steps(towers, params, batch, one_device(), Sam(RHO, 2))
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    many = two_steps(towers, params, batch, mesh, Sam(RHO, 2))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def clip_run(rho, image=IMAGE):
    """CLIP's run with a tiny network, its first parameters and a batch."""
    run = load_run("configs/clip.py:small", [f"--config.optim.sam_rho={rho}"])
    model = ClipConfig(8, image, TextTowerConfig(20, 6, 16, 1, 2))
    run = dataclasses.replace(run, model=model)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, image.size, image.size, 3), np.uint8)
    batch = Captioned(pixels, rng.integers(0, 20, (8, 6), np.int32))
    return LOSSES["clip"](run, model), initial_params("clip", model, 0), batch


def test_rho_0_is_the_ordinary_step_bit_for_bit(pairs):
    params, batch = pairs
    plain = two_steps(ordinary, params, batch, one_device())
    off = two_steps(ordinary, params, batch, one_device(), Sam(0.0, 2))
    jax.tree.map(np.testing.assert_array_equal, plain, off)


def test_clip_compares_all_pairs_when_it_is_sharpness_aware():
    (loss, params, batch), (aware, _, _) = clip_run(0), clip_run(RHO)
    parts = jax.tree.map(lambda x: x.reshape(4, 2, *x.shape[1:]), batch)
    grouped = jax.vmap(aware, (None, None, 0, None), axis_name=SAM_AXIS)
    values, metrics = jax.jit(grouped)(params, {}, parts, KEY)
    value, whole = jax.jit(loss)(params, {}, batch, KEY)
    np.testing.assert_allclose(values.mean(), value, rtol=1e-4)
    for name in whole:
        np.testing.assert_allclose(metrics[name].mean(), whole[name], rtol=1e-4)


def test_a_device_gathers_weights_and_embeddings_and_no_pictures():
    """And holds the copies of its own group only."""
    loss, params, batch = clip_run(RHO)
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    batch = jax.tree.map(lambda x: np.concatenate([x] * 4), batch)
    tx = optimizer(Optim(rate=0.01), 10)
    state = create_state(params, tx, mesh)
    step = jit_step(state, mesh, loss=loss, tx=tx, optim=with_sam(Sam(RHO, 4)))
    lowered = step.lower(state, {}, to_devices(mesh, batch), KEY)
    program = lowered.compile().as_text()
    gathered = re.findall(r"= f32\[([\d,]*)\]\S* all-gather\(", program)
    sizes = [np.prod([int(n) for n in shape.split(",")]) for shape in gathered]
    weights = max(leaf.size for leaf in jax.tree.leaves(params))
    assert sizes and max(sizes) <= weights < batch.image.size
    assert "f32[1,1,16,64]" in program and "f32[8,1,16,64]" not in program


def test_groups_that_do_not_fit_are_refused(pairs):
    params, batch = pairs
    batch = {name: np.concatenate([x, x[:2]]) for name, x in batch.items()}
    with pytest.raises(BadInput, match="sam_group = 4 times 8 devices"):
        two_steps(towers, params, batch, make_mesh(MeshConfig(8)), Sam(RHO, 4))


def test_training_a_resnet_is_refused():
    image = ImageTowerConfig(32, 32, 4, 4, 2, blocks=(1, 1, 1, 1))
    loss, params, batch = clip_run(0, image)
    with pytest.raises(BadInput, match="imported and used, not trained"):
        two_steps(loss, params, batch, one_device())
