"""Model directories: written whole, read strictly, every bit accounted for."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_model import CFG

from dalle2_jax.cli.main import main
from dalle2_jax.components import initial_params, load_component, save_component
from dalle2_jax.config import plain
from dalle2_jax.errors import BadInput


def test_a_component_comes_back_whole_even_from_strided_arrays(tmp_path):
    cfg = CFG["prior"]
    params = initial_params("prior", cfg, 0)
    strided = jax.tree.map(lambda x: np.asfortranarray(x), params)
    save_component(tmp_path, "prior", {"model": plain(cfg)}, strided)
    found = load_component(tmp_path, "prior")
    assert found.cfg == cfg and found.noise is None
    jax.tree.map(np.testing.assert_array_equal, params, found.params)


def test_damaged_components_are_named(folder, tmp_path):
    def broken(change):
        part = tmp_path / "upsampler"
        part.mkdir(exist_ok=True)
        weights = load_file(folder / "upsampler" / "model.safetensors")
        config = json.loads((folder / "upsampler" / "config.json").read_text())
        change(weights, config)
        save_file(weights, part / "model.safetensors")
        (part / "config.json").write_text(json.dumps(config))
        with pytest.raises(BadInput) as caught:
            load_component(tmp_path, "upsampler")
        return str(caught.value)

    name = "unet/stem/kernel"
    assert f"lacks {name}" in broken(lambda w, c: w.pop(name))
    assert "holds extra" in broken(lambda w, c: w.update(extra=w[name]))
    assert f"{name} is (1, 3)" in broken(
        lambda w, c: w.update({name: np.zeros((1, 3), "f")})
    )
    assert "did you mean 'factor'" in broken(lambda w, c: c["model"].update(facto=4))
    path = tmp_path / "upsampler" / "model.safetensors"
    json_path = tmp_path / "upsampler" / "config.json"
    json_path.write_text((folder / "upsampler" / "config.json").read_text())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadInput, match="cannot be read"):
        load_component(tmp_path, "upsampler")


def test_one_flipped_bit_of_the_weights_is_noticed(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    part = tmp_path / "upsampler"
    weights = part / "model.safetensors"
    assert main(["inspect", str(tmp_path), "--verify"]) == 0
    assert "upsampler: intact" in capsys.readouterr().out
    there = bytearray(weights.read_bytes())
    there[-100] ^= 1
    weights.write_bytes(there)
    with pytest.raises(BadInput, match="is damaged: its SHA-256 is not that of"):
        load_component(tmp_path, "upsampler")
    assert main(["inspect", str(tmp_path), "--verify"]) == 2
    assert "upsampler/model.safetensors is damaged" in capsys.readouterr().err
    (part / "model.safetensors.sha256").unlink()
    load_component(tmp_path, "upsampler")
