"""The Inception network of 2015-12-05, which all comparable FIDs are measured in.

Szegedy et al. 2015, in the form of the graph that was published for TensorFlow: average
pools leave their padding out of the count, the last block has a max pool, and there are
1008 classes. Blocks and layers have the names of the PyTorch port, so that a parameter
is found by its path.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dalle2_jax.clip.resnet import BatchNorm

SIZE = 299  # of the pictures
CLASSES = 1008
SPATIAL = 7  # channels that sFID looks at (Nash et al. 2021)


class Conv(NamedTuple):
    """One convolution, BatchNorm and ReLU. size: (y, x)."""

    name: str
    features: int
    size: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


def average(x):
    """Mean of the 3x3 neighbours that exist; [b, y, x, c]."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def largest(x):
    """Maximum of the 3x3 neighbours; [b, y, x, c]."""
    return nn.max_pool(x, (3, 3), padding="SAME")


def shrink(x):
    """Maximum of 3x3 at every second place: [b, y, x, c] -> [b, y', x', c]."""
    return nn.max_pool(x, (3, 3), (2, 2))


# A block is a tuple of branches that end side by side; a branch is a tuple of steps; a
# step is a pool or Convs that all read the same and are put side by side.


def block_35(pool):
    """Figure 5 of the paper, at 35x35; pool: channels of the pool's branch."""
    return (
        ((Conv("branch1x1", 64),),),
        ((Conv("branch5x5_1", 48),), (Conv("branch5x5_2", 64, (5, 5)),)),
        (
            (Conv("branch3x3dbl_1", 64),),
            (Conv("branch3x3dbl_2", 96, (3, 3)),),
            (Conv("branch3x3dbl_3", 96, (3, 3)),),
        ),
        (average, (Conv("branch_pool", pool),)),
    )


def block_17(width):
    """Figure 6, at 17x17; width: channels between its rows and columns."""
    row, column = (1, 7), (7, 1)
    return (
        ((Conv("branch1x1", 192),),),
        (
            (Conv("branch7x7_1", width),),
            (Conv("branch7x7_2", width, row),),
            (Conv("branch7x7_3", 192, column),),
        ),
        (
            (Conv("branch7x7dbl_1", width),),
            (Conv("branch7x7dbl_2", width, column),),
            (Conv("branch7x7dbl_3", width, row),),
            (Conv("branch7x7dbl_4", width, column),),
            (Conv("branch7x7dbl_5", 192, row),),
        ),
        (average, (Conv("branch_pool", 192),)),
    )


def block_8(pool):
    """Figure 7, at 8x8; pool: `average` or `largest`."""

    def fork(a, b):
        return Conv(a, 384, (1, 3)), Conv(b, 384, (3, 1))

    return (
        ((Conv("branch1x1", 320),),),
        ((Conv("branch3x3_1", 384),), fork("branch3x3_2a", "branch3x3_2b")),
        (
            (Conv("branch3x3dbl_1", 448),),
            (Conv("branch3x3dbl_2", 384, (3, 3)),),
            fork("branch3x3dbl_3a", "branch3x3dbl_3b"),
        ),
        (pool, (Conv("branch_pool", 192),)),
    )


HALF_17 = (  # 35x35 -> 17x17
    ((Conv("branch3x3", 384, (3, 3), 2, "VALID"),),),
    (
        (Conv("branch3x3dbl_1", 64),),
        (Conv("branch3x3dbl_2", 96, (3, 3)),),
        (Conv("branch3x3dbl_3", 96, (3, 3), 2, "VALID"),),
    ),
    (shrink,),
)
HALF_8 = (  # 17x17 -> 8x8
    ((Conv("branch3x3_1", 192),), (Conv("branch3x3_2", 320, (3, 3), 2, "VALID"),)),
    (
        (Conv("branch7x7x3_1", 192),),
        (Conv("branch7x7x3_2", 192, (1, 7)),),
        (Conv("branch7x7x3_3", 192, (7, 1)),),
        (Conv("branch7x7x3_4", 192, (3, 3), 2, "VALID"),),
    ),
    (shrink,),
)
STEM = {  # 299x299 -> 73x73 -> 35x35; one branch each
    "low_64": (
        (Conv("Conv2d_1a_3x3", 32, (3, 3), 2, "VALID"),),
        (Conv("Conv2d_2a_3x3", 32, (3, 3), 1, "VALID"),),
        (Conv("Conv2d_2b_3x3", 64, (3, 3)),),
        shrink,
    ),
    "low_192": (
        (Conv("Conv2d_3b_1x1", 80),),
        (Conv("Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"),),
        shrink,
    ),
}
BLOCKS = {
    "Mixed_5b": block_35(32),
    "Mixed_5c": block_35(64),
    "Mixed_5d": block_35(64),
    "Mixed_6a": HALF_17,
    "Mixed_6b": block_17(128),
    "Mixed_6c": block_17(160),
    "Mixed_6d": block_17(160),  # "mixed_6" of the graph, which sFID reads
    "Mixed_6e": block_17(192),
    "Mixed_7a": HALF_8,
    "Mixed_7b": block_8(average),
    "Mixed_7c": block_8(largest),
}


def conv_names():
    """The path of every Conv: "Conv2d_1a_3x3", "Mixed_5b/branch1x1", ..."""
    blocks = {"": STEM.values()} | {f"{name}/": block for name, block in BLOCKS.items()}
    return [
        f"{prefix}{conv.name}"
        for prefix, block in blocks.items()
        for branch in block
        for step in branch
        if not callable(step)
        for conv in step
    ]


class Taps(NamedTuple):
    """Where the network is read; float32.

    low_64, low_192, low_768: means over places of the maps after the two parts of the
    stem and after Mixed_6e. spatial: the first channels of Mixed_6d, [b, 17 * 17 * 7].
    pool: [b, 2048]. logits: [b, 1008], without their bias; biased: with it.
    """

    low_64: Any
    low_192: Any
    low_768: Any
    spatial: Any
    pool: Any
    logits: Any
    biased: Any


class Layer(nn.Module):
    """A Conv: convolution without bias, BatchNorm (epsilon 1e-3), ReLU."""

    conv: Conv

    @nn.compact
    def __call__(self, x):
        """x [b, y, x, c] -> [b, y', x', features], float32."""
        _, features, size, stride, padding = self.conv
        x = nn.Conv(
            features,
            size,
            stride,
            padding,
            use_bias=False,
            precision=jax.lax.Precision.HIGHEST,
            name="conv",
        )(x)
        return jax.nn.relu(BatchNorm(1e-3, name="norm")(x))


class Block(nn.Module):
    """The branches of a block, side by side in the channels."""

    branches: tuple

    @nn.compact
    def __call__(self, x):
        """x [b, y, x, c] -> [b, y', x', c'], float32."""
        ends = [_branch(steps, x) for steps in self.branches]
        return jnp.concatenate(ends, axis=-1)


class InceptionNetwork(nn.Module):
    """The whole network; it has no configuration."""

    @nn.compact
    def __call__(self, pixels):
        """pixels float32 [b, 299, 299, 3] in [-1, 1] -> Taps."""
        maps, x = {}, pixels
        for name, steps in STEM.items():
            maps[name] = x = _branch(steps, x)
        for name, branches in BLOCKS.items():
            maps[name] = x = Block(branches, name=name)(x)
        low = (maps[name].mean((1, 2)) for name in (*STEM, "Mixed_6e"))
        spatial = maps["Mixed_6d"][..., :SPATIAL].reshape(len(x), -1)
        pool = x.mean((1, 2))
        init = nn.initializers.lecun_normal()
        kernel = self.param("fc_kernel", init, (pool.shape[-1], CLASSES))
        bias = self.param("fc_bias", nn.initializers.zeros, (CLASSES,))
        logits = jnp.dot(pool, kernel, precision=jax.lax.Precision.HIGHEST)
        return Taps(*low, spatial, pool, logits, logits + bias)


def _branch(steps, x):
    """Walks the steps of one branch inside a module's call."""
    for step in steps:
        if callable(step):
            x = step(x)
        else:
            ends = [Layer(conv, name=conv.name)(x) for conv in step]
            x = jnp.concatenate(ends, axis=-1)
    return x
