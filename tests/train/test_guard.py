"""Bad steps: what is called one, that it leaves no trace, and what follows many."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.errors import BadInput, Failed
from dalle2_jax.shard.mesh import MeshConfig, make_mesh, to_devices
from dalle2_jax.train.guard import fresh_watch, judge
from dalle2_jax.train.ledger import (
    Astray,
    Ledger,
    append,
    by_quarter,
    position_at,
    returns,
)
from dalle2_jax.train.loop import Moment
from dalle2_jax.train.optim import optimizer
from dalle2_jax.train.run import Guard, Optim, run_from
from dalle2_jax.train.state import create_state
from dalle2_jax.train.step import jit_step

KEY = jax.random.key(0)


def squares(params, frozen, batch, key):
    """Mean of (x w - y)^2."""
    off = batch["x"] @ params["w"]["kernel"] - batch["y"]
    return jnp.mean(off**2), {}


OPTIM = Optim(rate=0.1, ema_more=(0.5,))


def steps_of(mesh, guard, optim=OPTIM):
    """(fresh state, compiled step, batch) of a small regression."""
    rng = np.random.default_rng(0)
    params = {"w": {"kernel": rng.normal(size=(4, 8)).astype("f")}}
    batch = {
        "x": rng.normal(size=(16, 4)).astype("f"),
        "y": rng.normal(size=(16, 8)).astype("f"),
    }
    tx = optimizer(optim, 100)
    state = create_state(params, tx, mesh, len(optim.ema_more))
    step = jit_step(state, mesh, loss=squares, tx=tx, optim=optim, guard=guard)
    return state, lambda s, b: step(s, {}, to_devices(mesh, b), KEY), batch


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30, 1e4])
def test_a_bad_step_leaves_no_trace(poison):
    """On eight devices, the poison in one example, on one of them."""
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    state, step, batch = steps_of(mesh, Guard(spike=10.0, horizon=2))
    for _ in range(3):
        old = state.params["w"]["kernel"]
        state, metrics = step(state, batch)
    assert not metrics["bad"] and old.is_deleted()  # donated
    before = jax.device_get(state)
    sick = {**batch, "y": batch["y"].copy()}
    sick["y"][5, 0] = poison
    state, metrics = step(state, sick)
    assert metrics["bad"]
    after = jax.device_get(state)
    for name in ("params", "ema", "emas", "opt"):
        ours, theirs = getattr(after, name), getattr(before, name)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert after.step == 4 and after.watch.skipped == 1 and after.watch.good == 3
    state, metrics = step(state, batch)
    assert not metrics["bad"] and metrics["skipped"] == 1
    assert not np.array_equal(state.params["w"]["kernel"], after.params["w"]["kernel"])


def test_spikes_are_judged_after_the_horizon_and_stay_out_of_the_mean():
    cfg, watch = Guard(spike=3.0, horizon=4), fresh_watch()
    seen = []
    for norm in (1.0, 100.0, 1.0, 2.0, 79.0, 77.0, 78.0):
        bad, watch = judge(watch, jnp.float32(0), jnp.float32(norm), cfg)
        seen.append(bool(bad))
    assert seen == [False, False, False, False, True, False, False]
    assert float(watch.norm) == pytest.approx((26 * 0.75 + 77 / 4) * 0.75 + 78 / 4)
    bad, _ = judge(watch, jnp.float32(0), jnp.float32(1e9), Guard())
    assert not bad, "spikes are borne unless the run asks for the opposite"


def moments(bad, step):
    """What a step tells: example i has loss i and timestep 10 i."""
    metrics = {
        "loss": np.float32(np.nan if bad else step),
        "grad_norm": np.float32(2.0),
        "bad": np.int32(bad),
        "losses": np.arange(4, dtype=np.float32),
        "times": np.arange(4) * 10,
    }
    return Moment(step, None, metrics, None)


def ledger_of(folder, guard):
    """A Ledger of a run with 40 diffusion steps, and the feed it watches."""
    feed = SimpleNamespace(used=0)
    run = SimpleNamespace(guard=guard, noise=SimpleNamespace(steps=40))
    return Ledger(feed, run, folder), feed


def test_skipped_steps_are_written_with_their_samples_and_timesteps(tmp_path):
    ledger, feed = ledger_of(tmp_path, Guard())
    for step in (1, 2, 3):
        feed.used += 4
        ledger.note(moments(step == 2, step))
    found = ledger.scalars()
    assert found["loss"] == 3 and "bad" not in found and "losses" not in found
    assert [found[f"loss_q{i}"] for i in range(4)] == [0, 1, 2, 3]
    assert not [name for name in ledger.scalars() if name.startswith("loss_q")]
    (line,) = map(json.loads, (tmp_path / "skipped_steps.jsonl").open())
    assert line == {
        "step": 2,
        "data_from": 4,
        "data_to": 8,
        "loss": "nan",
        "grad_norm": 2.0,
        "times": [0, 10, 20, 30],
    }


def test_what_is_not_finite_is_left_out_of_the_log(tmp_path):
    ledger, _ = ledger_of(tmp_path, Guard())
    ledger.note(moments(True, 1))
    assert ledger.scalars() == {"grad_norm": 2.0}


@pytest.mark.parametrize("then, error", [("stop", Failed), ("rollback", Astray)])
def test_enough_bad_steps_within_the_window(then, error, tmp_path):
    ledger, _ = ledger_of(tmp_path, Guard(most=3, window=5, then=then))
    for step, bad in enumerate([1, 0, 0, 0, 1, 1, 0, 0], start=1):
        ledger.note(moments(bad, step))
    ledger.note(moments(True, 9))
    with pytest.raises(error, match="5|3 of the last 5 steps up to 9") as caught:
        ledger.settle()
    assert then == "stop" or caught.value.first == 5


def test_data_go_on_where_a_return_left_them(tmp_path):
    assert position_at(tmp_path, 4, 100) == 100
    append(tmp_path, {"step": 5, "data_from": 1})
    append(tmp_path, {"rollback": 4, "position": 300})
    assert position_at(tmp_path, 4, 100) == 300 and position_at(tmp_path, 6, 700) == 700
    assert len(returns(tmp_path)) == 1


def test_quarters_of_the_chain():
    sums, counts = by_quarter([1.0, 2.0, 4.0, 8.0], [0, 249, 250, 999], 1000)
    assert sums.tolist() == [3, 4, 0, 8] and counts.tolist() == [2, 1, 0, 1]


def test_a_guard_that_cannot_be_is_refused():
    from dalle2_jax.cli.overrides import load_run
    from dalle2_jax.train.run import as_dict

    values = as_dict(load_run("configs/prior_diffusion.py:small"))
    with pytest.raises(BadInput, match="config.guard: then must be stop or rollback"):
        run_from({**values, "guard": {"then": "pray"}})
