"""Reading a compiled program: loops, pieces of one collective, notations of groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from dalle2_jax.plan.hlo import collectives, computations, runs
from dalle2_jax.shard.mesh import MeshConfig, make_mesh

# what the TPU compiler writes, shortened
TEXT = """HloModule jit_step, is_scheduled=true

%piece.1 (p: bf16[64,16]) -> bf16[64,256] {
  %all-gather.1 = bf16[64,256]{0,1:T(8,128)(2,1)} all-gather(%p), channel_id=40, replica_groups=mesh['axis_0'=2,'axis_1'=16] {'axis_1'}, dimensions={1}, metadata={op_name="jit(step)/up/sharding_constraint"}
}

%piece.2 (p.2: bf16[64,16]) -> bf16[64,256] {
  %all-gather.2 = bf16[64,256]{0,1:T(8,128)(2,1)} all-gather(%p.2), channel_id=40, replica_groups=mesh['axis_0'=2,'axis_1'=16] {'axis_1'}, dimensions={1}
}

%ring_body (s: (bf16[4,256], u32[])) -> (bf16[4,256], u32[]) {
  %s = (bf16[4,256]{1,0}, u32[]{:T(128)}) parameter(0)
  %turn = u32[]{:T(128)} get-tuple-element(%s), index=1
  %two = u32[]{:T(128)} constant(2)
  %collective-permute-start.1 = (bf16[4,256]{1,0}, bf16[4,256]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x), channel_id=7, source_target_pairs={{0,1},{1,0}}
  %next = u32[]{:T(128)} add(%turn, %two)
  ROOT %t = (bf16[4,256]{1,0}, u32[]{:T(128)}) tuple(%y, /*index=1*/%next)
}

%ring_condition (s.1: (bf16[4,256], u32[])) -> pred[] {
  %bound = u32[]{:T(128)} constant(8)
  %s.1 = (bf16[4,256]{1,0}, u32[]{:T(128)}) parameter(0)
  %turn.1 = u32[]{:T(128)} get-tuple-element(%s.1), index=1
  ROOT %lt = pred[]{:T(512)} compare(%turn.1, %bound), direction=LT
}

%layer (s.2: (s32[], f32[8])) -> (s32[], f32[8]) {
  %while.1 = (bf16[4,256]{1,0}, u32[]{:T(128)}) while(%i), condition=%ring_condition, body=%ring_body
  %fusion.1 = bf16[64,256]{0,1} fusion(%w), kind=kCustom, calls=%piece.1
  %fusion.2 = bf16[64,256]{0,1} fusion(%w), kind=kCustom, calls=%piece.2
}

%layer_condition (s.3: (s32[], f32[8])) -> pred[] {
  %n = s32[]{:T(128)} constant(24)
}

%all-reduce-scatter.3 (g: bf16[9,64]) -> bf16[9,4] {
  %all-reduce.13 = bf16[9,64]{1,0} all-reduce(%g), channel_id=9, replica_groups=[2,16]<=[32], to_apply=%sum
  ROOT %dynamic-slice.1 = bf16[9,4]{1,0} dynamic-slice(%all-reduce.13, %zero, %at), dynamic_slice_sizes={9,4}
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %while.2 = (s32[], f32[8]{0}) while(%b), condition=%layer_condition, body=%layer
  %all-reduce.1 = (f32[16]{0}, f32[]{:T(128)}) all-reduce(%c, %d), channel_id=1, replica_groups=[4,8]<=[32], to_apply=%sum
  %fusion.3 = bf16[9,4]{1,0} fusion(%grad), kind=kCustom, calls=%all-reduce-scatter.3
  %reduce-scatter.1 = f32[10]{0} reduce-scatter(%e), channel_id=2, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
}
"""  # noqa: E501


def test_bodies_of_loops_run_as_often_as_they_turn():
    times = runs(computations(TEXT))
    assert times["main"] == 1 and times["layer"] == times["piece.1"] == 24
    assert times["ring_body"] == 24 * 4  # eight by strides of two


def test_pieces_of_one_collective_count_once():
    found = {one.kind: one for one in collectives(TEXT, 32)}
    assert len(found) == 4
    gather = found["all-gather"]
    assert (gather.times, gather.group) == (24, 16)
    assert gather.bytes == 64 * 256 * 2 * 15 / 16
    assert gather.name.endswith("up/sharding_constraint")


def test_collectives_of_shard_map_share_a_channel_and_count_each():
    line = (
        "  %reduce_scatter.{0} = f32[10]{{0}} reduce-scatter(%e.{0}), channel_id=1, "
        "replica_groups={{{{0,1,2,3}},{{4,5,6,7}}}}, dimensions={{0}}, "
        'metadata={{op_name="jit(step)/shard_map/reduce_scatter"}}\n'
    )
    text = "ENTRY %main (a: f32[8]) -> f32[8] {\n" + line.format(1) + line.format(2)
    found = collectives(text + "}\n", 8)
    assert [one.bytes for one in found] == [10 * 4 * 3] * 2


def test_bytes_received_by_kind():
    found = {one.kind: one for one in collectives(TEXT, 32)}
    assert found["collective-permute"].bytes == 4 * 256 * 2 + 4  # with its flags
    assert found["collective-permute"].times == 96
    assert found["all-reduce"].bytes == 2 * 17 * 4 * 7 / 8
    scattered = [o for o in collectives(TEXT, 32) if o.kind == "reduce-scatter"]
    fused = 9 * 64 * 2 * 15 / 16
    assert sorted(o.bytes for o in scattered) == [10 * 4 * 3, fused]


@pytest.mark.parametrize("turns", [1, 6])
def test_programs_of_this_machine_are_read_too(turns):
    mesh = make_mesh(MeshConfig(1, -1))
    rows, columns = (NamedSharding(mesh, P(*s)) for s in (("fsdp",), (None, "fsdp")))

    def body(x, _):
        x = jax.lax.with_sharding_constraint(x * 2, columns)
        return jax.lax.with_sharding_constraint(x * 2, rows), None

    def step(x):
        return jax.lax.scan(body, x, length=turns)[0]

    x = jax.ShapeDtypeStruct((16, 64), np.float32)
    jitted = jax.jit(step, in_shardings=rows, out_shardings=rows)
    found = collectives(jitted.lower(x).compile().as_text(), 8)
    assert {one.kind for one in found} == {"all-to-all"}
    each = 16 * 64 * 4 / 8 * 7 / 8
    assert sum(one.bytes * one.times for one in found) == 2 * turns * each
    assert jnp.all(step(jnp.ones((1, 8))) == 4**turns)
