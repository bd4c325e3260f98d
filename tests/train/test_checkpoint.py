"""Checkpoints come back exactly, on any mesh, and damage is found."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dalle2_jax.errors import Failed
from dalle2_jax.shard.mesh import MeshConfig, make_mesh
from dalle2_jax.train.checkpoint import Checkpoints, fingerprints
from dalle2_jax.train.state import TrainState, create_state, state_layout


def a_state(mesh, seed=0):
    rng = np.random.default_rng(seed)
    params = {
        "a": {"kernel": rng.normal(size=(64, 64)).astype("f"), "bias": np.ones(64, "f")}
    }
    return create_state(params, optax.adam(1e-3), mesh)


def like(state, mesh):
    layout = state_layout(state, mesh)
    make = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)  # noqa: E731
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


def test_fingerprints_see_a_bit_and_a_swap_and_not_the_sharding():
    x = jnp.arange(1.0, 65.0).reshape(8, 8)
    base = fingerprints({"x": x})
    flipped = jax.lax.bitcast_convert_type(x, jnp.uint32).at[3, 3].add(1)
    assert (
        fingerprints({"x": jax.lax.bitcast_convert_type(flipped, jnp.float32)}) != base
    )
    assert fingerprints({"x": x[::-1]}) != base
    assert fingerprints({"x": x.T}) != base
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    where = jax.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp", "data"))
    assert fingerprints({"x": jax.device_put(x, where)}) == base


def damage(folder):
    """Flips one bit in the largest data file of a checkpoint's state."""
    files = [p for p in (folder / "state").rglob("*") if p.parent.name == "d"]
    path = max(files, key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def test_a_damaged_checkpoint_is_passed_over_for_an_intact_one(tmp_path):
    mesh = make_mesh(MeshConfig())
    state = a_state(mesh)
    saved = Checkpoints(tmp_path, keep=3)
    saved.save(state, 1, {})
    later = state._replace(step=state.step + 5)
    saved.save(later, 2, {})
    saved.close()
    damage(tmp_path / "5")
    found, position = Checkpoints(tmp_path, keep=3).restore(like(state, mesh))
    assert int(found.step) == 0 and position == 1
    damage(tmp_path / "0")
    with pytest.raises(Failed, match="none of the checkpoints"):
        Checkpoints(tmp_path, keep=3).restore(like(state, mesh))
