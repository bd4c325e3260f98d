"""Thousands of changed weight files: each a value or one sentence, in little memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from dalle2_jax.convert.exporter import export_weights
from dalle2_jax.convert.parity import read_case
from dalle2_jax.data.tokens import Tokenizer

DATA = Path(__file__).parent.parent / "parity" / "data"
CASES, IMPORTS = 700, 60  # of each container, of each JSON file of a source


class Network(torch.nn.Module):
    """Something to write as TorchScript."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(3, 2)
        self.outer = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
        self.size: int = 7
        self.sizes = [1, 2]

    def forward(self, x):
        """x [n, 3] -> [n, 2]."""
        return self.outer(self.inner(x))


def write_files(folder):
    """One small valid file of each container."""
    folder.mkdir(parents=True)
    arrays = {
        "a.weight": np.random.default_rng(0).standard_normal((4, 3), np.float32),
        "a.bias": np.arange(3, dtype=np.float16),
        "count": np.arange(5),
    }
    save_file(arrays, folder / "plain.safetensors")
    save_file({"a.bias": arrays["a.bias"]}, folder / "shard.safetensors")
    places = {"a.weight": "plain.safetensors", "a.bias": "shard.safetensors"}
    index = {"metadata": {"total_size": 9}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    tensors = {key: torch.tensor(value) for key, value in arrays.items()}
    tensors["half"] = torch.ones(4).bfloat16()
    tensors["turned"] = tensors["a.weight"].T
    saved = {"state_dict": tensors, "epoch": np.int64(3), "curve": np.arange(4.0)}
    torch.save(saved, folder / "zipped.pt")
    torch.save(tensors, folder / "bare.pt")
    torch.save(saved, folder / "legacy.old", _use_new_zipfile_serialization=False)
    torch.jit.save(torch.jit.script(Network()), folder / "script.pt")


@pytest.fixture(scope="module")
def valid(folder, tmp_path_factory):
    """Valid files and folders, made of a small model."""
    place = tmp_path_factory.mktemp("valid")
    write_files(place / "files")
    sources = place / "sources"
    for style in ("hf_clip", "openclip"):
        export_weights(folder, sources / style, style)
        Tokenizer.load(folder / "tokenizer").save(sources / style)
    case = read_case(DATA / "dalle2_pytorch_prior.safetensors")
    (sources / "prior").mkdir()
    save_file(case.params, sources / "prior" / "prior.safetensors")
    (sources / "prior" / "prior_config.json").write_text(json.dumps(case.config))
    ours = sources / "ours"
    for stage in ("clip", "prior", "decoder", "upsampler"):
        (ours / stage).mkdir(parents=True)
        for name in ("config.json", "model.safetensors"):
            (ours / stage / name).write_bytes((folder / stage / name).read_bytes())
    (ours / "dalle2.json").write_bytes((folder / "dalle2.json").read_bytes())
    return place


def test_every_changed_file_is_a_value_or_one_sentence(valid):
    program = str(Path(__file__).with_name("fuzz_weights.py"))
    command = [sys.executable, program, valid, CASES, IMPORTS, 0]
    ran = subprocess.run(map(str, command), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    counts = json.loads(ran.stdout.splitlines()[-1])
    for kind, (tried, refused, taken) in counts.items():
        print(f"{kind:<40} {tried:>5} tried {refused:>5} refused {taken:>5} read")
        assert refused > 0 and refused + taken == tried
    assert sum(tried for tried, _, _ in counts.values()) > 3000
