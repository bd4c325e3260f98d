"""Weights gathered before use: the same values, and nothing else travels."""

import jax
import jax.numpy as jnp
import numpy as np

from dalle2_jax.layers.init import init_params
from dalle2_jax.layers.place import Placement, along_batch, placed, placing
from dalle2_jax.layers.resblock import ResBlock
from dalle2_jax.plan.hlo import collectives
from dalle2_jax.shard.gather import IN_BLOCKS, outside_blocks, placement_on
from dalle2_jax.shard.mesh import MeshConfig, batch_sharding, make_mesh
from dalle2_jax.shard.rules import shardings


def test_nothing_happens_where_nobody_asks():
    x = jnp.ones(3)
    assert along_batch(x) is x and placed(ResBlock, "float32") is ResBlock


def test_a_block_on_a_mesh_equals_the_block_alone_and_moves_weights_only():
    mesh = make_mesh(MeshConfig(2, 4))
    block = ResBlock(32, groups=8)
    x = jax.random.normal(jax.random.key(0), (8, 4, 4, 16))
    time = jax.random.normal(jax.random.key(1), (8, 8))
    params = init_params(block, 0, x, time)
    params = jax.tree.map(lambda p: p + 0.1, params)

    def loss(params, x, time):
        kind = placed(ResBlock, "float32")
        y = kind(32, groups=8).apply({"params": params}, x, time)
        return jnp.sum(y**2)

    def spread(params, x, time):
        with placing(Placement(*placement_on(mesh))):
            return jax.value_and_grad(loss)(params, x, time)

    layout, batch = shardings(params, mesh), batch_sharding(mesh)
    step = jax.jit(
        spread, in_shardings=(layout, batch, batch), out_shardings=(None, layout)
    )
    alone = jax.value_and_grad(loss)(params, x, time)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(step(params, x, time))):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(a)
    text = step.lower(params, x, time).compile().as_text()
    moved = collectives(text, mesh.size)
    assert {one.kind for one in moved} <= {"all-gather", "all-reduce", "reduce-scatter"}
    largest = max(p.size for p in jax.tree.leaves(params)) * 4
    assert all(one.bytes <= 3 * largest for one in moved)


def test_what_belongs_to_a_block_gathers_there():
    inside = ("/unet/down_0/block_1/conv_1/kernel", "/unet/up_1/up/time/kernel")
    inside += ("/layers/mlp/up/kernel", "/clip/text/layers/attention/q/kernel")
    inside += ("/unet/middle/attention/out/kernel", "/unet/up_0/attention_2/q/kernel")
    outside = ("/unet/stem/kernel", "/tokens/embedding", "/unet/time/in/kernel")
    outside += ("/unet/down_0/down/kernel", "/z_noised/kernel")
    assert all(IN_BLOCKS.fullmatch(name) for name in inside)
    assert not any(IN_BLOCKS.fullmatch(name) for name in outside)
    mesh = make_mesh(MeshConfig(1, 8))
    tree = {"stem": {"kernel": jnp.ones((4, 16))}}
    whole = jax.jit(lambda t: outside_blocks(mesh, t))(tree)
    assert whole["stem"]["kernel"].sharding.is_fully_replicated
