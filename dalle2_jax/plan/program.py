"""The real train step of a run, for devices that may not be there, as shapes alone."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dalle2_jax.components import STAGES
from dalle2_jax.data.batches import Captioned
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.init import param_shapes
from dalle2_jax.shard.mesh import batch_sharding, check_batch, make_mesh, replicated
from dalle2_jax.shard.rules import shardings
from dalle2_jax.train.agreement import mismatches
from dalle2_jax.train.optim import optimizer
from dalle2_jax.train.run import HEARING
from dalle2_jax.train.state import fresh_state, state_layout
from dalle2_jax.train.step import step_of


class Program(NamedTuple):
    """A step that can be lowered: step.lower(*shapes).

    step: jitted (state, frozen, batch, key) -> (state, metrics); shapes: its arguments
    as ShapeDtypeStructs with shardings; mesh: the mesh they name.
    """

    step: Any
    shapes: tuple
    mesh: Any

    @property
    def parameters(self):
        """Shapes of the trained and of the frozen parameters."""
        return self.shapes[0].params, self.shapes[1]


def program_of(run, clip_cfg, devices):
    """The train step of a run on `devices`.

    Args:
        run: Run.
        clip_cfg: ClipConfig of the frozen CLIP, for the stages that have one.
        devices: jax devices, of a compile-only topology or real.

    Raises:
        BadInput: mesh or batch do not fit the devices, or CLIP the run.
    """
    mesh = make_mesh(run.mesh, devices)
    check_batch(mesh, run.batch)
    check_clip(run, clip_cfg)
    tx = optimizer(run.optim, run.steps)
    fresh = functools.partial(fresh_state, tx=tx, averages=len(run.optim.ema_more))
    state = jax.eval_shape(fresh, network_shapes(run.stage, run.model))
    frozen = {}
    if run.stage in HEARING:
        frozen = {"clip": network_shapes("clip", clip_cfg)}
    step = step_of(run, clip_cfg, tx, state, mesh)
    key = jax.eval_shape(jax.random.key, 0)
    shapes = (
        laid(state, state_layout(state, mesh)),
        laid(frozen, shardings(frozen, mesh)),
        laid(batch_shapes(run), batch_sharding(mesh)),
        laid(key, replicated(mesh)),
    )
    return Program(step, shapes, mesh)


def network_shapes(stage, cfg):
    """The parameters of a stage's network: nested dict of ShapeDtypeStructs."""
    _, network, example = STAGES[stage]
    return param_shapes(network(cfg), *example(cfg))


def batch_shapes(run):
    """Captioned of ShapeDtypeStructs: a whole batch of a run."""
    size = run.data.size
    image = jax.ShapeDtypeStruct((run.batch, size, size, 3), jnp.uint8)
    tokens = jax.ShapeDtypeStruct((run.batch, run.data.context), jnp.int32)
    return Captioned(image, tokens)


def laid(shapes, layout):
    """Shapes with their shardings: a tree of them, or one for all leaves."""
    if isinstance(layout, jax.sharding.Sharding):
        layout = jax.tree.map(lambda s: layout, shapes)
    return jax.tree.map(
        lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
        shapes,
        layout,
    )


def check_clip(run, clip_cfg):
    """Refuses a CLIP whose widths are not those that the run's stage hears.

    Raises:
        BadInput: names both widths.
    """
    for field, own, other in mismatches(run, clip_cfg):
        raise BadInput(
            f"the frozen CLIP has {field.split('.')[-1]} {other} and the {run.stage} "
            f"expects {own}; name the CLIP it is trained with: --clip "
            "configs/clip.py:VARIANT."
        )
