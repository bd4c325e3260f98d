"""Layouts: every parameter of every stage has one, and batches must divide."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from dalle2_jax.errors import BadInput
from dalle2_jax.shard.mesh import MeshConfig, check_batch, make_mesh, to_devices
from dalle2_jax.shard.rules import shardings


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, np.float32)


def test_the_free_axis_takes_what_the_others_leave():
    mesh = make_mesh(MeshConfig(data=-1, fsdp=2, tensor=2))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a mesh asks of a device that is not there."""

    id: int
    slice_index: int = 0
    platform: str = "cpu"
    device_kind: str = "cpu"
    process_index: int = 0


@pytest.mark.parametrize(
    "count, cfg, sizes",
    [
        (8, MeshConfig(-1, -1), (1, 8, 1)),
        (64, MeshConfig(-1, -1), (4, 16, 1)),
        (96, MeshConfig(-1, -1), (6, 16, 1)),
        (24, MeshConfig(-1, -1), (3, 8, 1)),
        (64, MeshConfig(-1, -1, 2), (2, 16, 2)),
        (64, MeshConfig(1, -1), (1, 64, 1)),
    ],
)
def test_a_mesh_is_chosen_where_the_configuration_leaves_it_open(count, cfg, sizes):
    mesh = make_mesh(cfg, [Chip(i) for i in range(count)])
    assert tuple(mesh.shape.values()) == sizes


def test_weights_are_never_split_across_slices():
    chips = [Chip(i, slice_index=i // 8, process_index=i // 8) for i in range(16)]
    mesh = make_mesh(MeshConfig(-1, -1), chips)
    assert tuple(mesh.shape.values()) == (2, 8, 1)
    for row in mesh.devices:
        assert len({chip.slice_index for chip in row.flat}) == 1


def test_a_mesh_that_does_not_cover_the_devices_is_refused():
    with pytest.raises(BadInput, match="does not cover 8 devices"):
        make_mesh(MeshConfig(data=3))


def test_rules_name_the_last_axes_so_stacks_of_layers_follow():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    tree = {
        "mlp": {"up": {"kernel": shape(8, 16)}, "down": {"kernel": shape(16, 8)}},
        "layers": {"up": {"kernel": shape(3, 8, 16), "bias": shape(3, 16)}},
        "conv": {"kernel": shape(3, 3, 4, 6)},
        "odd": {"kernel": shape(4, 3)},
        "neither": {"kernel": shape(5, 3)},
    }
    found = jax.tree.map(lambda s: s.spec, shardings(tree, mesh))
    assert found["mlp"]["up"]["kernel"] == P("fsdp", "tensor")
    assert found["mlp"]["down"]["kernel"] == P("tensor", "fsdp")
    assert found["layers"]["up"]["kernel"] == P(None, "fsdp", "tensor")
    assert found["layers"]["up"]["bias"] == P(None, None)
    assert found["conv"]["kernel"] == P(None, None, None, "fsdp")
    assert found["odd"]["kernel"] == P("fsdp", None)  # 2 does not divide 3
    assert found["neither"]["kernel"] == P(None, None)


def test_a_leaf_without_a_rule_is_named():
    mesh = make_mesh(MeshConfig())
    with pytest.raises(BadInput, match="/lonely"):
        shardings({"lonely": shape(2)}, mesh, rules=[(".*/kernel", ())])


def test_a_batch_must_divide_and_arrives_in_order():
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    check_batch(mesh, 16)
    with pytest.raises(BadInput, match="multiple of 8"):
        check_batch(mesh, 12)
    x = np.arange(16)
    assert np.array_equal(to_devices(mesh, x), x)
