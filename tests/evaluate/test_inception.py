"""Inception: which files are taken, and that a picture's features are its own."""

import json
from collections import OrderedDict
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from dalle2_jax.cli.main import main
from dalle2_jax.convert import inception as port_file
from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.features import extract
from dalle2_jax.evaluate.inception import (
    convert_inception,
    inception_features,
    inception_function,
    load_inception,
)
from dalle2_jax.evaluate.inception_network import conv_names
from dalle2_jax.evaluate.parity import drawn_state

RECORDED = Path(__file__).parent.parent / "parity/data/inception_fid.safetensors"


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """Made-up weights in the port's form, with its counters, and their plain dict."""
    with safe_open(RECORDED, framework="numpy") as file:
        shapes = json.loads(file.metadata()["param_shapes"])
    state = drawn_state(shapes, seed=1)
    tensors = OrderedDict((k, torch.from_numpy(v)) for k, v in state.items())
    for name in conv_names():
        key = f"{name.replace('/', '.')}.bn.num_batches_tracked"
        tensors[key] = torch.tensor(7)
    path = tmp_path_factory.mktemp("inception") / "port.pth"
    torch.save(tensors, path)
    return path, state


@pytest.fixture(scope="module")
def inception(port):
    return load_inception(port[0], published=False)


def leaves(inception):
    return dict(jax.tree_util.tree_leaves_with_path(inception.params))


def same(a, b):
    a, b = leaves(a), leaves(b)
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_the_port_has_these_tensors(port):
    _, state = port
    assert len(state) == 472 == 5 * len(conv_names()) + 2
    assert sum(a.size for a in state.values()) + len(conv_names()) == 23_885_486


def test_a_file_is_converted_once_and_taken_as_it_is(port, inception, tmp_path):
    to = tmp_path / "new" / "inception.safetensors"
    made = convert_inception(port[0], to, published=False)
    again = load_inception(to)
    assert made.sha256 == again.sha256 == inception.sha256
    assert same(inception, again)
    assert not again.published
    arrays = load_file(to)
    with safe_open(to, framework="numpy") as file:
        metadata = file.metadata()
    arrays["fc_bias"][3] += 1e-6
    save_file(arrays, to, metadata)
    with pytest.raises(BadInput, match="damaged"):
        load_inception(to)


def test_the_other_spelling_has_no_counters(port, inception, tmp_path):
    path, state = tmp_path / "plain.safetensors", port[1]
    save_file(state, path)
    assert same(load_inception(path, published=False), inception)
    save_file({k: v for k, v in state.items() if k != "fc.bias"}, path)
    with pytest.raises(BadInput, match="fc.bias is missing"):
        load_inception(path, published=False)


def test_only_the_published_file_counts_as_published(port, tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="bytes and pt_inception"):
        load_inception(port[0])
    monkeypatch.setattr(port_file, "BYTES", port[0].stat().st_size)
    with pytest.raises(BadInput, match="the SHA-256 .* and pt_inception"):
        load_inception(port[0])
    monkeypatch.setattr(port_file, "SHA256", port_file.file_sha256(port[0]))
    load_inception(port[0])
    with pytest.raises(BadInput, match="does not exist"):
        load_inception(tmp_path / "nothing.pth")


def test_import(port, tmp_path, capsys):
    to = tmp_path / "inception.safetensors"
    ask = ["import", str(port[0]), "--as", "inception", "--to", str(to)]
    assert main(ask) == 2
    error = capsys.readouterr().err
    assert "--unpublished" in error
    assert error.count("\n") == 1
    assert main([*ask, "--unpublished", "--dry-run"]) == 0
    assert not to.exists()
    assert main([*ask, "--unpublished"]) == 0
    assert f"not the published weights, SHA-256 {load_inception(to).sha256}" in (
        capsys.readouterr().out
    )
    ask[-1] = str(tmp_path / "folder")
    assert main([*ask, "--unpublished"]) == 2


def test_features_are_a_pictures_own(inception):
    """Not of its neighbours, its place, the padding, the batch or the devices."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 20, 28, 3), dtype=np.uint8)
    function, device = inception_function(inception, "clean"), jax.local_devices()
    alone = extract(function, images[:1], unit=2, devices=device[:1])
    found = extract(function, images, unit=2, devices=device[:2])
    turned = extract(function, images[::-1], unit=2, devices=device[:1])
    sizes = {name: x.shape for name, x in found.items()}
    assert sizes == {"pool": (5, 2048), "spatial": (5, 2023), "logits": (5, 1008)}
    for name, x in found.items():
        assert x.dtype == np.float32
        assert np.array_equal(x[:1], alone[name])
        assert np.array_equal(x, turned[name][::-1])
        assert x.std(0).max() > 1e-3


def test_pictures_of_another_form_are_refused(inception):
    with pytest.raises(BadInput, match="uint8"):
        inception_features(inception, np.zeros((2, 8, 8, 3), np.float32))
    with pytest.raises(BadInput, match="shape"):
        inception_features(inception, np.zeros((2, 3, 8, 8), np.int32))
    with pytest.raises(BadInput, match="the resize cleanest is none of"):
        inception_function(inception, "cleanest")
