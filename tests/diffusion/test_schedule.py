"""Tables of noise levels: what the schedules promise, and which steps are kept."""

import numpy as np
import pytest

from dalle2_jax import config
from dalle2_jax.diffusion.schedule import (
    Noise,
    alpha_bars,
    betas,
    full_table,
    inverse_rows,
    kept_steps,
    rows,
)
from dalle2_jax.errors import BadInput

TABLES = [("cosine", 64), ("cosine", "fast27"), ("linear", 15), ("linear", "ddim50")]


def test_the_cosine_chain_ends_in_noise_with_one_beta_clipped():
    beta = betas("cosine", 1000)
    assert np.sum(beta == 0.999) == 1 and beta[-1] == 0.999
    assert 2.3e-9 < alpha_bars(beta)[-1] < 2.5e-9


def test_the_linear_chain_keeps_a_little_signal_at_its_end():
    beta = betas("linear", 1000)
    np.testing.assert_allclose(beta[[0, -1]], [1e-4, 0.02])
    assert 3.9e-5 < alpha_bars(beta)[-1] < 4.1e-5


@pytest.mark.parametrize("kind", ["cosine", "linear"])
@pytest.mark.parametrize("steps", [50, 1000, 4000])
def test_betas_are_variances_and_signal_only_falls(kind, steps):
    beta = betas(kind, steps)
    assert beta.shape == (steps,) and beta.dtype == np.float64
    assert np.all((beta > 0) & (beta < 1))
    assert np.all(np.diff(alpha_bars(beta)) < 0)


@pytest.mark.parametrize("kind, spec", TABLES)
def test_fewer_steps_keep_the_levels_of_the_full_chain(kind, spec):
    table, ab = rows(kind, 1000, spec), alpha_bars(betas(kind, 1000))
    np.testing.assert_array_equal(table.ab, ab[table.t])
    np.testing.assert_allclose(np.cumprod(1 - table.beta[::-1])[::-1], table.ab)


@pytest.mark.parametrize("kind, spec", TABLES)
def test_a_row_starts_where_the_one_above_it_ends(kind, spec):
    table = rows(kind, 1000, spec)
    assert table.t.dtype == np.int32 and np.all(np.diff(table.t) < 0)
    np.testing.assert_array_equal(table.ab_next[:-1], table.ab[1:])
    assert table.ab_next[-1] == 1 and table.rest_next[-1] == 0
    np.testing.assert_array_equal(table.ab + table.rest, 1)


@pytest.mark.parametrize("kind, spec", TABLES)
def test_the_posterior_variance_is_finite_and_below_beta(kind, spec):
    table = rows(kind, 1000, spec)
    assert np.all(table.variance <= table.beta) and table.variance[-1] == 0
    assert all(np.all(np.isfinite(column)) for column in table)
    assert table.log_variance[-1] == table.log_variance[-2]


def test_a_table_of_one_step_is_finite():
    table = rows("cosine", 1000, 1)
    assert len(table.t) == 1 and all(np.all(np.isfinite(c)) for c in table)


def test_the_rest_survives_float32_where_alpha_bar_does_not():
    table = rows("cosine", 1000, 1000)
    rest = 1 - table.ab[-1]
    assert abs(np.float32(table.rest[-1]) / rest - 1) < 1e-7
    assert abs((1 - np.float32(table.ab[-1])) / rest - 1) > 1e-4


def test_the_full_table_is_in_the_order_of_t():
    np.testing.assert_array_equal(full_table("linear", 100).t, np.arange(100))


@pytest.mark.parametrize("spec", [1, 2, 27, 250, 1000])
def test_a_number_of_steps_in_every_spelling(spec):
    kept = kept_steps(1000, spec)
    assert len(set(kept)) == len(kept) == spec and kept[0] == 0
    assert spec == 1 or kept[-1] == 999
    for other in (str(spec), (spec,), [spec], np.int64(spec)):
        np.testing.assert_array_equal(kept_steps(1000, other), kept)


def test_sections_share_the_chain_from_the_clean_end():
    # 301 steps make sections of 151 and 150; 74.5 rounds to the even 74.
    expected = [0, 50, 100, 150, 151, 225, 300]
    np.testing.assert_array_equal(kept_steps(301, (4, 3)), expected)
    np.testing.assert_array_equal(kept_steps(301, "4,0"), expected[:4])
    assert len(kept_steps(1000, "10,10,3,2,2")) == 27


def test_ddim_takes_one_whole_stride():
    np.testing.assert_array_equal(kept_steps(1000, "ddim25"), np.arange(0, 1000, 40))


def test_fast27_comes_down_from_997():
    kept, even = kept_steps(1000, "fast27"), kept_steps(1000, "10,10,3,2,2")
    np.testing.assert_array_equal(kept[:-1], even[:-1])
    assert (kept[-1], even[-1]) == (997, 999)


@pytest.mark.parametrize(
    "spec",
    [0, -3, 1001, "600,600", "ddim", "ddim999", "many", "", (), 2.5, "5,-5", None],
)
def test_steps_that_cannot_be_kept(spec):
    with pytest.raises(BadInput):
        kept_steps(1000, spec)


@pytest.mark.parametrize("kind, spec", TABLES)
def test_the_inverse_table_climbs_the_same_levels(kind, spec):
    down = rows(kind, 1000, spec)
    up = inverse_rows(down)
    assert len(up.t) == len(down.t) - 1 and np.all(np.diff(up.t) > 0)
    np.testing.assert_array_equal(up.ab_next[:-1], up.ab[1:])
    assert up.ab[0] == down.ab[-1] and up.ab_next[-1] == down.ab[0]
    np.testing.assert_array_equal(up.ab_next + up.rest_next, 1)


def test_noise_is_built_from_a_config():
    noise = config.build(Noise, {"schedule": "linear", "predicts": "x0"})
    assert noise == Noise("linear", 1000, "x0", False, 1.0)


@pytest.mark.parametrize(
    "field, value",
    [("schedule", "sine"), ("predicts", "score"), ("steps", 0), ("time_power", 0.0)],
)
def test_noise_that_is_none(field, value):
    with pytest.raises(BadInput, match=field):
        Noise(**{field: value})


def test_an_unknown_schedule_is_named():
    with pytest.raises(BadInput, match="quadratic"):
        betas("quadratic", 1000)


@pytest.mark.parametrize(
    "spec, times", [("lucid6", [16, 13, 9, 6, 2]), ("laion6", [17, 14, 11, 8, 5, 2])]
)
def test_a_lagging_table_leads_to_levels_one_step_back(spec, times):
    table = rows("cosine", 20, spec)
    assert table.t.tolist() == times
    ab = alpha_bars(betas("cosine", 20))
    np.testing.assert_allclose(table.ab, ab[times])
    np.testing.assert_allclose(table.ab_next, [*ab[np.array(times[1:]) - 1], 1])
    now = np.array([ab[t - 1] for t in times])  # the chain of levels one step back
    following = np.append(now[1:], 1)
    expected = (1 - now / following) * (1 - following) / (1 - now)
    np.testing.assert_allclose(table.variance, expected, atol=1e-12)
    assert (table.variance <= table.rest_next + 1e-12).all()


@pytest.mark.parametrize("name, first, more", [("lucid", -1, 1), ("laion", 0, 2)])
@pytest.mark.parametrize("count", [5, 25, 50, 64, 100, 250, 500, 999])
def test_lagging_steps_are_those_that_torch_gives(name, first, more, count):
    from torch import linspace

    theirs = linspace(first, 1000, count + more)[1:-1].int().tolist()
    table = rows("linear", 1000, f"{name}{count}")
    assert table.t[::-1].tolist() == theirs
    assert all(np.isfinite(column).all() for column in table)


@pytest.mark.parametrize("spec", ["lucid", "laionx", "lucid0", "lucid1", "laion1001"])
def test_a_lagging_table_needs_a_number_that_fits(spec):
    with pytest.raises(BadInput, match="sampling steps cannot be|is no grid for 1000"):
        rows("cosine", 1000, spec)
