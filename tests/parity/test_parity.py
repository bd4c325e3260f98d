"""Every supported family against recorded outputs of the original implementation."""

import argparse
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from dalle2_jax.cli import parity
from dalle2_jax.errors import BadInput, Failed
from dalle2_jax.evaluate.parity import FAMILIES, check

DATA = Path(__file__).parent / "data"


def changed(tmp_path, family, change, metadata=None):
    """A copy of a recorded case after `change(arrays)`."""
    source, copy = DATA / f"{family}.safetensors", tmp_path / "copy.safetensors"
    with safe_open(source, framework="numpy") as file:
        metadata = {**file.metadata(), **(metadata or {})}
    arrays = load_file(source)
    change(arrays)
    save_file(arrays, copy, metadata)
    return copy


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_outputs_are_those_of_the_original(family):
    report = check(DATA / f"{family}.safetensors")
    assert report.family == family
    assert report.differences
    assert [d for d in report.differences if not d.close] == []
    if not family.endswith("_loop"):
        assert report.skipped == []


def test_a_moved_weight_is_noticed(tmp_path, capsys):
    def change(arrays):
        arrays["param/vision_model.pre_layrnorm.bias"][0] += 0.05

    path = changed(tmp_path, "clip_hf_vision", change)
    parser = argparse.ArgumentParser()
    parity.add_arguments(parser)
    with pytest.raises(Failed, match="image_embeds"):
        parity.run(parser.parse_args([str(path)]))
    assert "past the tolerance" in capsys.readouterr().out
    parity.run(parser.parse_args([str(path), "--tolerance", "1"]))


def test_a_left_over_weight_is_named(tmp_path):
    def change(arrays):
        arrays["param/extra.weight"] = arrays["param/visual_projection.weight"]

    with pytest.raises(BadInput, match="extra.weight"):
        check(changed(tmp_path, "clip_hf_vision", change))


def test_a_missing_weight_is_named(tmp_path):
    def change(arrays):
        del arrays["param/visual_projection.weight"]

    with pytest.raises(BadInput, match="visual_projection.weight is missing"):
        check(changed(tmp_path, "clip_hf_vision", change))


def test_a_missing_input_is_named(tmp_path):
    def change(arrays):
        del arrays["input/pixel_values"]

    with pytest.raises(BadInput, match="pixel_values"):
        check(changed(tmp_path, "clip_hf_vision", change))


def test_an_unknown_family_is_refused(tmp_path):
    copy = changed(tmp_path, "clip_hf_vision", len, {"case": "vqgan"})
    with pytest.raises(BadInput, match="vqgan is not supported"):
        check(copy)


@pytest.mark.parametrize("content", [b"", b"no safetensors at all"])
def test_another_kind_of_file_is_refused(tmp_path, content):
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="cannot be read"):
        check(path)


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(BadInput, match="nowhere"):
        check(tmp_path / "nowhere.safetensors")
