"""Microbatches give the gradient of the large batch, on one device and on many."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.cli.overrides import load_run
from dalle2_jax.clip.contrastive import ClipConfig
from dalle2_jax.clip.image import ImageTowerConfig
from dalle2_jax.clip.text import TextTowerConfig
from dalle2_jax.components import initial_params
from dalle2_jax.data.batches import Captioned
from dalle2_jax.errors import BadInput
from dalle2_jax.shard.flops import flops_of
from dalle2_jax.shard.mesh import MeshConfig, make_mesh, to_devices
from dalle2_jax.train import accumulate
from dalle2_jax.train.cost import model_flops, with_remat
from dalle2_jax.train.losses import LOSSES
from dalle2_jax.train.optim import gradient, optimizer
from dalle2_jax.train.state import create_state
from dalle2_jax.train.step import gradient_of, step_of

KEY = jax.random.key(3)
CLIP = ClipConfig(
    8, ImageTowerConfig(16, 8, 16, 1, 2), TextTowerConfig(20, 6, 16, 1, 2)
)
SMALLER = {
    "prior": (
        "prior_diffusion.py",
        ["width=32", "depth=2", "heads=2", "clip=8", "context=6", "text_width=16"],
    ),
    "autoregressive": (
        "prior_autoregressive.py",
        ["codes=3", "decoder.depth=1", "buckets=8", "clip=8", "context=6"]
        + ["text_width=16"],
    ),
    "decoder": (
        "decoder_64.py",
        ["unet.multiples=(1,)", "unet.attend=(1,)", "size=8", "clip=8"]
        + ["text_width=16", "unet.remat=True"],
    ),
    "classifier": (
        "classifier.py",
        ["unet.multiples=(1,)", "unet.attend=(1,)", "unet.out_channels=20", "size=8"],
    ),
}
ALSO = {"autoregressive": ["codes_from=16"], "classifier": ["data.classes=()"]}


def tiny(stage, *changes):
    """A Run and host arrays for it: (run, params, frozen, batch)."""
    name, smaller = SMALLER[stage]
    words = [f"model.{word}" for word in smaller]
    words += ["batch=16", *ALSO.get(stage, ()), *changes]
    run = load_run(f"configs/{name}:small", [f"--config.{w}" for w in words])
    params = initial_params(stage, run.model, 0)
    rng = np.random.default_rng(0)
    moved = jax.tree.map(
        lambda x: np.asarray(x + 0.05 * rng.normal(size=x.shape).astype("f")), params
    )
    pixels = rng.integers(0, 256, (16, 16, 16, 3), np.uint8)
    batch = Captioned(pixels, rng.integers(0, 20, (16, 6), np.int32))
    return run, moved, {"clip": initial_params("clip", CLIP, 0)}, batch


def found(run, params, frozen, batch, count, mesh):
    """((loss, metrics), gradient) on the host."""
    loss = LOSSES[run.stage](run, CLIP)
    grad = jax.jit(gradient_of(loss, run.optim, count, mesh))
    return jax.device_get(grad(params, frozen, to_devices(mesh, batch), KEY))


def apart(a, b):
    """Paths of the leaves in which two trees differ by more than rounding."""

    def near(x, y):
        return np.shape(x) == np.shape(y) and np.allclose(x, y, 2e-4, 2e-6)

    leaves = jax.tree_util.tree_leaves_with_path(jax.tree.map(near, a, b))
    return [jax.tree_util.keystr(path) for path, alike in leaves if not alike]


def test_microbatches_give_the_gradient_of_the_batch(monkeypatch):
    """Unrolled as on CPUs and scanned as elsewhere, one device and eight."""
    run, *given = tiny("prior")
    one = make_mesh(MeshConfig(1), jax.devices()[:1])
    whole = found(run, *given, 1, one)
    assert apart(found(run, *given, 4, one), whole) == []
    monkeypatch.setattr(accumulate, "_unrolled", accumulate._scanned)
    many = make_mesh(MeshConfig(2, 2, 2))
    assert apart(found(run, *given, 2, many), whole) == []


MESHES = [(8, 1, 1), (1, 8, 1), (2, 4, 1), (4, 1, 2), (2, 2, 2)]


@pytest.mark.slow
@pytest.mark.parametrize("stage", list(SMALLER))
def test_every_mesh_gives_the_gradient_of_one_device(stage):
    run, *given = tiny(stage)
    whole = found(run, *given, 1, make_mesh(MeshConfig(1), jax.devices()[:1]))
    for sizes in MESHES:
        many = make_mesh(MeshConfig(*sizes))
        assert apart(found(run, *given, 1, many), whole) == []


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["decoder", "autoregressive", "classifier"])
def test_every_stage_that_can_gives_the_same(stage):
    run, *given = tiny(stage)
    mesh = make_mesh(MeshConfig(1), jax.devices()[:1])
    (value, metrics), grads = found(run, *given, 2, mesh)
    (whole, _), expected = found(run, *given, 1, mesh)
    assert apart((value, grads), (whole, expected)) == []


def test_contrastive_losses_are_not_taken_in_microbatches():
    with pytest.raises(BadInput, match="accumulate is 2, but the clip stage compares"):
        load_run("configs/clip.py:small", ["--config.accumulate=2"])


def test_a_batch_of_unequal_parts_is_refused():
    run, *given = tiny("prior")
    with pytest.raises(BadInput, match="accumulate = 3 times 1 devices"):
        found(run, *given, 3, make_mesh(MeshConfig(1), jax.devices()[:1]))


def test_masters_moments_and_averages_are_float32_where_it_computes_in_bfloat16():
    run, params, frozen, batch = tiny(
        "prior", "model.dtype='bfloat16'", "model.depth=1", "optim.ema_more=(0.9,)"
    )
    mesh = make_mesh(MeshConfig(1), jax.devices()[:1])
    tx = optimizer(run.optim, run.steps)
    state = create_state(params, tx, mesh, 1)
    step = step_of(run, CLIP, tx, state, mesh)
    given = (state, frozen, to_devices(mesh, batch), KEY)
    lowered = step.lower(*given)
    assert "xbf16>" in lowered.as_text()
    state, metrics = lowered.compile()(*given)
    for tree in (state.params, state.ema, state.emas, state.opt):
        kinds = {leaf.dtype for leaf in jax.tree.leaves(tree)}
        assert kinds <= {jnp.dtype("float32"), jnp.dtype("int32")}
    assert metrics["loss"].dtype == jnp.float32


def test_model_flops_count_nothing_that_is_recomputed():
    run, *given = tiny("prior", "model.remat=True")
    plain, *_ = tiny("prior")
    assert with_remat(run.model, False) == plain.model
    counts = [model_flops(r, CLIP, *given) for r in (run, plain)]
    real = flops_of(gradient(LOSSES["prior"](run, CLIP)), *given, KEY)
    assert counts[0] == counts[1] < real < 1.5 * counts[0]
