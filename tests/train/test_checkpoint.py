"""Checkpoints come back exactly, on any mesh, and damage is found."""

import json
import random
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dalle2_jax.cli.main import main
from dalle2_jax.errors import Failed
from dalle2_jax.shard.mesh import MeshConfig, make_mesh, replicated
from dalle2_jax.train.checkpoint import Checkpoints
from dalle2_jax.train.fingerprint import fingerprint_on_host, fingerprints
from dalle2_jax.train.state import TrainState, create_state, state_layout
from dalle2_jax.train.verify import digests, problems, steps_of


def a_state(mesh, seed=0):
    rng = np.random.default_rng(seed)
    params = {
        "a": {"kernel": rng.normal(size=(64, 64)).astype("f"), "bias": np.ones(64, "f")}
    }
    return create_state(params, optax.adam(1e-3), mesh)


def like(state, mesh):
    layout = state_layout(state, mesh)

    def make(x, place):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

    return jax.tree.map(make, state, layout)


def test_restored_on_another_mesh_bit_for_bit(tmp_path):
    one, other = make_mesh(MeshConfig()), make_mesh(MeshConfig(data=2, fsdp=4))
    state = a_state(one)
    saved = Checkpoints(tmp_path, keep=2)
    saved.save(state, 640, {"stage": "x"})
    saved.close()
    found, position = Checkpoints(tmp_path, keep=2).restore(like(state, other))
    assert position == 640 and isinstance(found, TrainState)
    jax.tree.map(np.testing.assert_array_equal, state, found)
    assert found.params["a"]["kernel"].sharding.spec[1] == "fsdp"


KINDS = ("float32", "bfloat16", "float16", "float8_e4m3fn", "int8", "bool", "int4")


@pytest.mark.parametrize("kind", KINDS)
def test_fingerprints_see_a_bit_and_a_swap_of_any_dtype(kind):
    bits = np.random.default_rng(0).integers(0, 2, (8, 8))
    x, flipped = jnp.asarray(bits, kind), bits.copy()
    flipped[3, 3] ^= 1
    base = fingerprints({"x": x})["x"]
    assert fingerprint_on_host(np.asarray(x)) == base
    for other in (jnp.asarray(flipped, kind), x[::-1], x.T, x[:, ::-1]):
        assert fingerprints({"x": other})["x"] != base


def test_fingerprints_do_not_see_the_sharding():
    x = jnp.arange(1.0, 65.0).reshape(8, 8)
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    where = jax.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp", "data"))
    assert fingerprints({"x": jax.device_put(x, where)}) == fingerprints({"x": x})
    assert fingerprints({"x": jax.random.key(1)}) != fingerprints(
        {"x": jax.random.key(2)}
    )


class Mixed(NamedTuple):
    """A state of several dtypes."""

    step: Any
    params: Any
    ema: Any


def test_other_dtypes_are_kept_and_converted_where_asked(tmp_path):
    mesh = make_mesh(MeshConfig())
    x = jax.device_put(jnp.linspace(-3, 3, 64).reshape(8, 8), replicated(mesh))
    params = {"half": x.astype("bfloat16"), "byte": x.astype("float8_e4m3fn")}
    state = Mixed(jnp.int32(7), params, {"x": x})
    saved = Checkpoints(tmp_path, keep=2)
    saved.save(state, {"shard": 3, "row": 5}, {})
    saved.close()

    def wanted(tree, kind=None):
        place = replicated(mesh)
        return jax.tree.map(
            lambda v: jax.ShapeDtypeStruct(v.shape, kind or v.dtype, sharding=place),
            tree,
        )

    found, position = Checkpoints(tmp_path, keep=2).restore(wanted(state))
    assert position == {"shard": 3, "row": 5}
    jax.tree.map(np.testing.assert_array_equal, state, found)
    other = wanted(state)._replace(ema=wanted(state.ema, jnp.bfloat16))
    found, _ = Checkpoints(tmp_path, keep=2).restore(other)
    np.testing.assert_array_equal(found.ema["x"], x.astype("bfloat16"))


def test_a_state_of_another_shape_is_named(tmp_path):
    mesh = make_mesh(MeshConfig())
    saved = Checkpoints(tmp_path, keep=2)
    saved.save(a_state(mesh), 0, {})
    wanted = like(a_state(mesh), mesh)
    smaller = jax.ShapeDtypeStruct((32,), "float32", sharding=replicated(mesh))
    saved.manager.wait_until_finished()
    wanted.params["a"]["bias"] = smaller
    with pytest.raises(Failed, match=r"params/a/bias is \(64,\), in this run \(32,\)"):
        saved.restore(wanted)
    del wanted.params["a"]["bias"]
    with pytest.raises(Failed, match="differs in params/a/bias from this run"):
        saved.restore(wanted)
    saved.close()


def test_the_newest_and_every_so_many_are_kept(tmp_path):
    state = a_state(make_mesh(MeshConfig()))
    saved = Checkpoints(tmp_path / "checkpoints", keep=2, every=4)
    for step in range(1, 8):
        saved.save(state._replace(step=jnp.int32(step)), step, {})
    saved.close()
    assert steps_of(tmp_path) == [4, 6, 7]
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"4", "6", "7"}


def test_the_next_step_may_take_the_memory_of_what_is_being_saved(tmp_path):
    state = a_state(make_mesh(MeshConfig()))
    before = jax.device_get(state)
    double = jax.jit(lambda s: jax.tree.map(lambda x: x + x, s), donate_argnums=0)
    saved = Checkpoints(tmp_path / "checkpoints", keep=2)
    wanted = like(state, make_mesh(MeshConfig()))
    saved.save(state, 0, {})
    for _ in range(3):
        state = double(state)
    jax.block_until_ready(state)
    saved.close()
    found, _ = Checkpoints(tmp_path / "checkpoints", keep=2).restore(wanted)
    jax.tree.map(np.testing.assert_array_equal, before, found)


def damage(folder):
    """Flips one bit in the largest data file of a checkpoint's state."""
    files = [p for p in (folder / "state").rglob("*") if p.parent.name == "d"]
    flip(max(files, key=lambda p: p.stat().st_size), 0.5, 4)


def flip(path, where, bit):
    """Flips a bit of the byte at a fraction of a file."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * where)] ^= 1 << bit
    path.write_bytes(data)


def two_checkpoints(folder, mesh):
    """A run directory with the checkpoints 0 and 5 of the returned state."""
    state = a_state(mesh)
    saved = Checkpoints(folder / "checkpoints", keep=3)
    saved.save(state, 1, {"stage": "x"})
    saved.save(state._replace(step=state.step + 5), 2, {"stage": "x"})
    saved.close()
    (folder / "config.json").write_text("{}")
    return state


def test_a_damaged_checkpoint_is_set_aside_for_an_intact_one(tmp_path):
    mesh = make_mesh(MeshConfig())
    state = two_checkpoints(tmp_path, mesh)
    folder = tmp_path / "checkpoints"
    damage(folder / "5")
    saved = Checkpoints(folder, keep=3)
    found, position = saved.restore(like(state, mesh))
    assert int(found.step) == 0 and position == 1
    assert (tmp_path / "damaged" / "5.0").is_dir()
    saved.save(state._replace(step=state.step + 5), 2, {})
    saved.close()
    found, position = Checkpoints(folder, keep=3).restore(like(state, mesh))
    assert int(found.step) == 5 and position == 2
    damage(folder / "0")
    damage(folder / "5")
    with pytest.raises(Failed, match="none of the checkpoints"):
        Checkpoints(folder, keep=3).restore(like(state, mesh))
    assert steps_of(tmp_path) == [0, 5]


def test_a_bit_flipped_in_any_file_is_found_and_the_file_named(tmp_path, capsys):
    two_checkpoints(tmp_path, make_mesh(MeshConfig()))
    folder = tmp_path / "checkpoints" / "5"
    assert problems(folder) == []
    places = random.Random(0)
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    names = {p: p.relative_to(folder).as_posix() for p in files}
    for path in files:
        before = path.read_bytes()
        flip(path, places.random(), places.randrange(8))
        assert any(names[path] in line for line in problems(folder)), names[path]
        path.write_bytes(before)
    damage(folder)
    assert main(["inspect", str(tmp_path), "--verify"]) == 1
    out, err = capsys.readouterr()
    assert "checkpoint 0: intact\ncheckpoint 5: damaged" in out
    assert "the leaf is not what was written" in out and "[5] are damaged" in err


def test_a_missing_and_a_cut_file_are_named(tmp_path):
    two_checkpoints(tmp_path, make_mesh(MeshConfig()))
    folder = tmp_path / "checkpoints" / "5"
    for path in list((folder / "ema").rglob("d/*")):
        before = path.read_bytes()
        name = path.relative_to(folder).as_posix()
        path.write_bytes(before[: len(before) // 2])
        assert f"{name}: the file is not what was written" in problems(folder)
        path.unlink()
        assert f"{name}: the file is missing" in problems(folder)
        path.write_bytes(before)
    assert problems(folder) == []


def test_a_changed_position_of_the_data_is_no_checkpoint(tmp_path):
    mesh = make_mesh(MeshConfig())
    state = two_checkpoints(tmp_path, mesh)
    path = tmp_path / "checkpoints" / "5" / "data" / "metadata"
    path.write_text(json.dumps({"position": 3}))
    found, position = Checkpoints(tmp_path / "checkpoints", 3).restore(
        like(state, mesh)
    )
    assert int(found.step) == 0 and position == 1


def test_digests_tell_what_differs(tmp_path, capsys):
    state = a_state(make_mesh(MeshConfig()))
    ones = jax.tree.map(jnp.ones_like, state.ema)
    for name, changed in (("a", state), ("b", state._replace(ema=ones))):
        saved = Checkpoints(tmp_path / name / "checkpoints", keep=3)
        saved.save(changed, 1, {})
        saved.close()
    a, b = digests(tmp_path / "a"), digests(tmp_path / "b")
    assert {k for k in a if a[k] != b[k]} == {"ema"}
    (tmp_path / "a" / "config.json").write_text("{}")
    assert main(["inspect", str(tmp_path / "a"), "--digest"]) == 0
    assert f"ema {a['ema']}" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path), "--verify"]) == 2
