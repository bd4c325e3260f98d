"""`dalle2 bench train`: figures that agree, and the table of a sweep."""

import json

import pytest

from dalle2_jax.cli import bench
from dalle2_jax.cli.main import main

SMALL = ["model.unet.multiples=(1,)", "model.unet.channels=32", "model.size=16"]
WORDS = [f"--config.{word}" for word in (*SMALL, "data.size=16")]


def test_figures_of_a_step_agree(capsys):
    words = ["--config", "configs/upsampler_256.py:small", *WORDS, "--batch", "8"]
    assert main(["bench", "train", *words, "--json", "--steps", "2"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["batch"] == 8 and found["stage"] == "upsampler"
    assert found["fastest_s"] <= found["step_s"] <= found["slowest_s"]
    assert found["images_per_s"] == pytest.approx(8 / found["step_s"])
    speed = found["flops_per_step"] / found["step_s"]
    assert found["mfu"] == pytest.approx(speed / found["peak_flops"])
    state = 4 * 4 * found["parameters"]  # parameters, two moments, one average
    assert found["program_bytes"] > state / found["devices"]


def test_a_table_shows_what_does_not_fit():
    timing = dict.fromkeys(("batch", "compile_s", "step_s", "fastest_s"), 1)
    timing |= {"slowest_s": 2, "images_per_s": 9.0, "flops_per_step": 2e12, "mfu": 0.5}
    timing |= {"program_bytes": 2**31, "remat": True, "stage": "prior", "devices": 1}
    timing |= {"parameters": 7, "dtype": "bfloat16", "device": "x", "peak_flops": 1e15}
    lines = list(bench.table([timing, {"batch": 2, "remat": 0, "out_of_memory": 1}]))
    assert lines[2] == "1 | yes | 1.0 | 1000.0 (1000.0-2000.0) | 9 | 2 | 50.0 % | 2.00"
    assert lines[3] == "2 | no | does not fit into memory"
