"""`dalle2 bench sample`: programs of every stage, figures that agree, the peer."""

import importlib
import json

import jax
import pytest

from dalle2_jax.bench.peer import threads
from dalle2_jax.bench.programs import Taken, rounds
from dalle2_jax.cli import bench_sample
from dalle2_jax.cli.main import main

TINY = {
    "clip": "clip=32 text.width=32 text.depth=1 text.heads=2",
    "prior": "clip=32 text_width=32 width=64 depth=1 heads=2",
    "decoder": "size=8 clip=32 text_width=32 unet.channels=32 unet.depth=1"
    " unet.multiples=(1,2) unet.attend=(2,) unet.head_width=32 unet.context_width=32"
    " unet.remat=False",
    "upsampler": "size=32 unet.channels=32 unet.depth=1 unet.multiples=(1,)"
    " unet.remat=False",
}
STAGES = ["clip", "prior", "decoder", "upsampler"]


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(bench_sample.SETS, "tiny", TINY)
    words = ["bench", "sample", "--sizes", "tiny", "--batch", "2", "--steps", "2/2/2"]
    return [*words, "--dtype", "bfloat16"]  # one program for all of the tests


def test_memory_is_known_without_weights(tiny, capsys):
    held = sum(x.nbytes for x in jax.live_arrays())
    assert main([*tiny, "--memory-only", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["stage"] for row in found["stages"]] == STAGES
    for row in found["stages"]:
        assert 2 * row["parameters"] <= row["weights"] < 2.5 * row["parameters"]
        assert row["needs"] > row["weights"] and "seconds" not in row
    assert found["needs"] == max(row["needs"] for row in found["stages"])
    grown = sum(x.nbytes for x in jax.live_arrays()) - held
    assert grown < found["weights_of_all"] / 10


def test_figures_of_stages_agree(tiny, capsys):
    assert main([*tiny, "--rounds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = found["stages"]
    assert [row["samples"] for row in rows] == [3, 2, 2, 2]  # and the empty caption
    assert all(row["least"] <= row["seconds"] <= row["most"] for row in rows)
    assert found["seconds"] == pytest.approx(sum(row["seconds"] for row in rows))
    assert found["images_per_s"] == pytest.approx(2 / found["seconds"])
    assert found["peak_bytes"] > 1e6 and "ratio" not in found
    text = "\n".join(bench_sample.table(found))
    assert "bfloat16, batch 2, steps 2/2/2: cpu" in text and "images/s" in text


@pytest.mark.slow
def test_diffusers_draws_with_the_same_weights(tiny, capsys):
    pytest.importorskip("diffusers")
    importlib.import_module("torchvision_names")
    import torch

    torch.set_num_threads(1)
    assert main([*tiny, "--rounds", "1", "--peer", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for row in (*found["stages"], found):
        assert row["ratio"] == pytest.approx(row["peer_seconds"] / row["seconds"])
    assert len(found["stages"]) == 4
    assert torch.get_num_threads() == found["threads"] == threads()
    said = f"{threads()} threads on both sides, 1 rounds in turns"
    assert said in "\n".join(bench_sample.table(found))


def test_ratios_say_how_many_times_as_long_the_peer_takes():
    ours, theirs = [Taken(1.0, 2.0), Taken(3.0, 2.0)], [Taken(4.0, 5.0)] * 2
    row = bench_sample.figures(ours, theirs)
    assert (row["ratio"], row["ratio_of_least"], row["ratio_of_cpu"]) == (2, 4, 2.5)


def test_rounds_take_turns():
    called = []
    calls = {name: lambda name=name: called.append(name) for name in "ab"}
    taken = rounds(calls, 3)
    assert called == [*"ba", *"ab", *"ba", *"ab"]
    assert [len(taken[name]) for name in "ab"] == [3, 3]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--memory-only", "--peer"], "goes with --sizes, and without --peer"),
        (["--batch", "0"], "must be at least 1"),
        (["--steps", "2/2000"], "2000 sampling steps do not fit"),
        (["--dtype", "float8"], "dtype must be one of"),
    ],
)
def test_bad_usage_is_one_sentence(words, said, tiny, capsys):
    assert main([*tiny, *words]) == 2
    assert said in capsys.readouterr().err
