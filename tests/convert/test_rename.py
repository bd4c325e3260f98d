"""The renaming engine: strict in both directions."""

import jax
import numpy as np
import pytest

from dalle2_jax.convert.rename import (
    CONV,
    CONV_1,
    LINEAR,
    SAME,
    Row,
    channel_major,
    export_params,
    flat_paths,
    fused,
    import_params,
    norm,
    ones_in_front,
    weights,
)
from dalle2_jax.errors import BadInput

RNG = np.random.default_rng(0)
ROWS = [
    *weights("in", "stem", CONV),
    *norm("blocks.{i}.ln", "layers/norm", 3),
    Row(
        "blocks.{i}.qkv",
        tuple(f"layers/{part}/kernel" for part in "qkv"),
        fused(3, 0, LINEAR),
        3,
    ),
]
STATE = {
    "in.weight": RNG.standard_normal((4, 2, 3, 3), np.float32),
    "in.bias": RNG.standard_normal(4, np.float32),
}
for i in range(3):
    STATE[f"blocks.{i}.ln.weight"] = RNG.standard_normal(4, np.float32)
    STATE[f"blocks.{i}.ln.bias"] = RNG.standard_normal(4, np.float32)
    STATE[f"blocks.{i}.qkv"] = RNG.standard_normal((12, 4), np.float32)
SHAPES = {
    "stem": {"kernel": np.zeros((3, 3, 2, 4)), "bias": np.zeros(4)},
    "layers": {
        "norm": {"scale": np.zeros((3, 4)), "bias": np.zeros((3, 4))},
        **{part: {"kernel": np.zeros((3, 4, 4))} for part in "qkv"},
    },
}


def test_values_land_where_the_table_says():
    ours = import_params(STATE, ROWS, SHAPES)
    np.testing.assert_array_equal(
        ours["stem"]["kernel"][1, 2, 0, 3], STATE["in.weight"][3, 0, 1, 2]
    )
    np.testing.assert_array_equal(
        ours["layers"]["k"]["kernel"][2], STATE["blocks.2.qkv"][4:8].T
    )
    assert all(leaf.flags.c_contiguous for leaf in flat_paths(ours).values())


def test_reading_the_table_backwards_gives_the_file_back():
    back = export_params(import_params(STATE, ROWS, SHAPES), ROWS)
    assert back.keys() == STATE.keys()
    for key, value in back.items():
        np.testing.assert_array_equal(value, STATE[key])
        assert value.flags.c_contiguous


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (SAME, (5, 3)),
        (LINEAR, (5, 3)),
        (CONV, (5, 3, 2, 2)),
        (CONV_1, (5, 3, 1)),
        (ones_in_front(2), (1, 1, 7)),
        (fused(3, 0, LINEAR), (12, 5)),
        (fused(3, 2, SAME), (12,)),
        (fused(2, 2, CONV_1), (8, 5, 1)),
        (channel_major(4, LINEAR), (8, 3)),
        (channel_major(4, SAME), (8,)),
    ],
)
def test_every_layout_is_undone_by_its_inverse(layout, shape):
    a = RNG.standard_normal(shape, np.float32)
    np.testing.assert_array_equal(layout.theirs(layout.ours(a)), a)


def test_rows_per_head_are_told_from_rows_per_block():
    rows = np.arange(12.0)  # 2 heads, 3 parts, 2 wide
    per_head = fused(3, 2, SAME).ours(rows)
    np.testing.assert_array_equal(per_head[0], [0, 1, 6, 7])
    per_block = fused(3, 0, SAME).ours(rows)
    np.testing.assert_array_equal(per_block[0], [0, 1, 2, 3])


def test_token_is_the_fast_axis_of_channel_major_rows():
    ours = channel_major(4, SAME).ours(np.arange(8.0))[0]
    np.testing.assert_array_equal(ours.reshape(4, 2), [[0, 4], [1, 5], [2, 6], [3, 7]])


def test_a_left_over_key_is_named():
    with pytest.raises(BadInput, match="file.pt: strange.weight"):
        import_params({**STATE, "strange.weight": np.zeros(1)}, ROWS, SHAPES, "file.pt")


def test_a_key_that_holds_no_weight_may_be_ignored():
    state = {**STATE, "position_ids": np.zeros(1)}
    found = import_params(state, ROWS, SHAPES, ignored=("position_ids",))
    without = import_params(STATE, ROWS, SHAPES)
    jax.tree.map(np.testing.assert_array_equal, found, without)
    assert jax.tree.leaves(found)


@pytest.mark.parametrize("key", STATE)
def test_each_missing_key_is_named(key):
    state = {k: v for k, v in STATE.items() if k != key}
    with pytest.raises(BadInput, match=f"{key} is missing"):
        import_params(state, ROWS, SHAPES)


@pytest.mark.parametrize("key", STATE)
def test_each_wrong_shape_is_named_with_both_shapes(key):
    wrong = np.zeros((7, *STATE[key].shape[1:]), np.float32)
    with pytest.raises(BadInput, match=rf"{key} has shape \(7.*expected"):
        import_params({**STATE, key: wrong}, ROWS, SHAPES)


def test_a_transposed_matrix_is_a_wrong_shape():
    wrong = {**STATE, "blocks.1.qkv": STATE["blocks.1.qkv"].T}
    with pytest.raises(BadInput, match="blocks.1.qkv has shape"):
        import_params(wrong, ROWS, SHAPES)


def test_a_leaf_without_a_row_is_named():
    shapes = {**SHAPES, "head": {"kernel": np.zeros(1)}}
    with pytest.raises(BadInput, match="head/kernel"):
        import_params(STATE, ROWS, shapes)


def test_a_row_without_a_leaf_is_named():
    shapes = {k: v for k, v in SHAPES.items() if k != "stem"}
    with pytest.raises(BadInput, match="stem/kernel"):
        import_params(STATE, ROWS, shapes)
