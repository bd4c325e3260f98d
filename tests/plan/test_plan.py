"""Plans: of small runs on virtual devices, on TPU topologies where libtpu is there."""

import contextlib
import dataclasses
import importlib.util
import json
import os

import jax
import numpy as np
import pytest

from dalle2_jax.cli.main import main
from dalle2_jax.cli.overrides import load_run
from dalle2_jax.cli.plan import clip_beside
from dalle2_jax.errors import BadInput
from dalle2_jax.plan.hlo import Collective
from dalle2_jax.plan.plan import Memory, Plan, plan, refused
from dalle2_jax.plan.predict import predict
from dalle2_jax.plan.program import program_of
from dalle2_jax.plan.report import as_json, lines
from dalle2_jax.plan.topology import devices_of
from dalle2_jax.plan.traffic import (
    Traffic,
    compute_width,
    is_other,
    least_bytes,
    weight_sizes,
)
from dalle2_jax.shard.mesh import MeshConfig, make_mesh
from dalle2_jax.shard.rules import shardings
from dalle2_jax.train.cost import without_remat

GIB = 2**30
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the TPU compiler is missing"
)
SMALL = ("batch=16", "mesh.data=1", "mesh.fsdp=-1")
PRIOR = (*SMALL, "model.width=32", "model.depth=5", "model.remat=True")
UNET = (  # 14 blocks of 6 kinds, all alike in size
    *SMALL,
    "model.size=8",
    "model.spatial_map=0",
    "model.unet.multiples=(1,)",
    "model.unet.depth=2",
    "model.unet.attend=(1,)",
    "model.unet.remat=True",
)


def small(name, changes):
    return load_run(f"configs/{name}:small", [f"--config.{c}" for c in changes])


def clip():
    return load_run("configs/clip.py:small").model


def made(memory, sent):
    """A Plan from numbers."""
    return Plan(
        run=small("prior_diffusion.py", PRIOR),
        topology="v5e:4x4",
        chip="v5e",
        devices=16,
        mesh={"data": 1, "fsdp": 16, "tensor": 1},
        parameters=(10, 5),
        memory=memory,
        flops=4e12,
        model_flops=3e12,
        traffic=sent,
        seconds=1.0,
        host_bytes=10**9,
    )


def test_a_small_prior_on_virtual_devices():
    chip, devices = devices_of("cpu:8")
    found = plan(small("prior_diffusion.py", PRIOR), clip(), "cpu:8", chip, devices)
    assert found.memory.fits and found.memory.arguments > 0
    assert 1.1 < found.flops / found.model_flops < 4 / 3
    assert "all-to-all" not in found.traffic.kinds and not found.traffic.excess
    text = "\n".join(lines(found))
    assert "weights and their gradients, nothing else" in text
    assert "with recomputation" in text and "prediction" not in text
    assert json.loads(json.dumps(as_json(found)))["communication"]["all_to_all"] == 0


def test_memory_traffic_and_time_are_told():
    one = Collective("all-to-all", 2.0**20, 3, ("bf16[64,8]",), 16, "jit(step)/up/dot")
    sent = Traffic({"all-to-all": (3, 3 * 2.0**20)}, 3 * 2.0**20, 2.0**20, [one])
    found = made(Memory(2 * GIB, GIB, 0, 0, 4 * GIB), sent)
    text = "\n".join(lines(found))
    assert "3.00 GiB per device: arguments 2.00 GiB, temporaries 1.00 GiB" in text
    assert "fits: 75% of 4.00 GiB" in text and "3.00 x the least" in text
    assert "3 x all-to-all bf16[64,8] 3.00 MiB jit(step)/up/dot" in text
    ahead = predict(found)
    assert ahead.bound == "compute" and "35% to 55% of 197 Tflop/s" in ahead.words
    np.testing.assert_allclose(ahead.seconds[0], 4e12 / 16 / (0.35 * 197e12))
    np.testing.assert_allclose(ahead.images[1] * ahead.seconds[1], found.run.batch)


def test_a_program_that_is_too_large_is_reported_with_its_sizes():
    run = small("prior_diffusion.py", PRIOR)
    program = program_of(run, clip(), devices_of("cpu:8")[1])
    words = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for "
        "HLO temporaries (17.58G) exceeds available HBM (15.75G).\nmore"
    )
    error = jax.errors.JaxRuntimeError(words)
    memory = refused(error, program, 15.75 * GIB)
    assert memory.temporaries == int(17.58 * GIB) and not memory.fits
    assert memory.arguments > 0
    text = "\n".join(lines(made(memory, None)))
    assert "does NOT fit: 11" in text and "exceeds available HBM (15.75G)" in text
    with pytest.raises(jax.errors.JaxRuntimeError, match="else"):
        refused(jax.errors.JaxRuntimeError("something else"), program, 1)


def test_perturbed_weights_travel_as_they_are_stored():
    run = load_run("configs/clip.py")
    assert compute_width(run) == 4
    plain = dataclasses.replace(run.optim, sam_rho=0.0)
    assert compute_width(dataclasses.replace(run, optim=plain)) == 2


def test_the_least_bytes_by_formula():
    mesh = make_mesh(MeshConfig(2, 4))
    tree = {
        "block_0": {"conv_1": {"kernel": leaf(3, 3, 8, 16), "bias": leaf(16)}},
        "stem": {"kernel": leaf(8, 16)},
    }
    places = shardings(tree, mesh)
    tree = jax.tree.map(
        lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), tree, places
    )
    split = 9 * 8 * 16 * 2 + 8 * 16 * 4  # in a block bfloat16, outside float32
    copies = 2 * split / 4 * 1 / 2  # gradients are summed over `data` too
    bias = 2 * 16 * 4 * 7 / 8
    least = least_bytes(tree, 2, trained=True)
    assert least == 3 * split * 3 / 4 + copies + bias
    assert least_bytes(tree, 2, trained=False) == split * 3 / 4
    known = weight_sizes(tree)
    gather = Collective("all-gather", 1e6, 1, ("bf16[3,3,8,16]",), 4, "")
    moved = gather._replace(shapes=("bf16[64,24,1024]",))
    assert not is_other(gather, known, 0) and is_other(moved, known, 0)
    assert not is_other(moved, known, 1e7)
    padded = gather._replace(shapes=("bf16[3,3,8,18]",))
    assert is_other(padded, known, 0)
    assert not is_other(padded._replace(kind="reduce-scatter"), known, 0)


def leaf(*sizes):
    return jax.ShapeDtypeStruct(sizes, np.float32)


def test_remat_is_taken_out_everywhere():
    run = without_remat(small("decoder_64.py", UNET))
    assert not run.model.unet.remat
    run = without_remat(load_run("configs/clip.py"))
    assert not run.model.image.remat and not run.model.text.remat


@pytest.mark.parametrize(
    "name, sentence",
    [("v5p", "is none; examples"), ("cpu:64", "host_platform_device_count=64")],
)
def test_topologies_that_are_none(name, sentence):
    with pytest.raises(BadInput, match=sentence):
        devices_of(name)


def test_a_missing_compiler_and_another_clip_are_one_sentence(capsys, monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "true")  # put back afterwards
    words = ["plan", "--config", "configs/prior_diffusion.py:small"]
    assert main([*words, "--topology", "cpu:8", "--clip", "configs/clip.py"]) == 2
    said = capsys.readouterr().err
    assert "CLIP has clip 1024 and the prior expects 64" in said and "--clip" in said
    if importlib.util.find_spec("libtpu") is None:
        assert main([*words, "--topology", "v5e:4x4"]) == 2
        assert "pip install 'dalle2_jax[tpu]'" in capsys.readouterr().err


def test_clip_is_found_beside_the_configuration():
    assert clip_beside("configs/decoder_64.py:small") == "configs/clip.py:small"
    assert clip_beside("configs/decoder_64.py:karlo") == "configs/clip.py"
    assert clip_beside("elsewhere/mine.py") == "configs/clip.py"


@pytest.mark.slow
def test_a_composed_plan_sends_what_the_whole_step_sends():
    chip, devices = devices_of("cpu:8")
    run = small("decoder_64.py", UNET)
    told = []
    parts = plan(run, clip(), "cpu:8", chip, devices, most=2, tell=told.append)
    whole = plan(run, clip(), "cpu:8", chip, devices, most=99)
    assert parts.blocks > 2 and whole.blocks == 0 and len(told) == parts.blocks + 2
    assert parts.traffic.kinds["all-reduce"][1] == whole.traffic.kinds["all-reduce"][1]
    # CPUs gather once more in a block that is compiled alone; TPUs send the same bytes
    np.testing.assert_allclose(parts.traffic.total, whole.traffic.total, rtol=0.2)
    assert parts.memory.arguments == whole.memory.arguments
    assert parts.flops == whole.flops


@needs_libtpu
def test_a_small_prior_on_tpus():
    chip, devices = devices_of("v5e:4x4")
    changes = (*PRIOR, "model.width=256", "model.dtype=bfloat16", "batch=256")
    run = small("prior_diffusion.py", changes)
    found = plan(run, clip(), "v5e:4x4", chip, devices)
    assert found.memory.fits and found.traffic.ratio < 1.3
    assert "all-to-all" not in found.traffic.kinds and not found.traffic.excess
    assert "images/s" in "\n".join(lines(found))


@needs_libtpu
def test_too_large_for_tpus():
    chip, devices = devices_of("v5e:4x4")
    run = small("prior_diffusion.py", (*PRIOR, "batch=8388608"))
    found = plan(run, clip(), "v5e:4x4", chip, devices)
    assert not found.memory.fits and "exceeds available HBM" in found.memory.reason


def test_what_the_compiler_is_told_of_its_surroundings_is_taken_back():
    before = dict(os.environ)
    with contextlib.suppress(BadInput):  # without libtpu
        devices_of("v5e:4x4")
    assert dict(os.environ) == before
