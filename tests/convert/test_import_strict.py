"""Imports: values and configurations that are refused, what is taken off and told."""

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dalle2_jax.cli.main import main
from dalle2_jax.components import load_component
from dalle2_jax.convert.exporter import export_weights
from dalle2_jax.convert.importer import import_weights, recognise, snapshot_of
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.errors import BadInput

KEY = "transformer.resblocks.0.mlp.c_fc.weight"


@pytest.fixture
def openclip(folder, tmp_path):
    """An OpenCLIP folder of the small model: (folder, its weights)."""
    export_weights(folder, tmp_path / "theirs", "openclip")
    Tokenizer.load(folder / "tokenizer").save(tmp_path / "theirs")
    return tmp_path / "theirs", load_file(
        tmp_path / "theirs/open_clip_model.safetensors"
    )


def save(openclip, state):
    save_file(state, openclip[0] / "open_clip_model.safetensors")


def weights(model):
    return load_file(model / "clip" / "model.safetensors")


def refused(capsys, source, to, *more):
    """What `dalle2 import` says as it ends with 2, having written nothing."""
    assert main(["import", str(source), "--to", str(to), *more]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and not to.exists()
    assert not list(to.parent.glob(f".{to.name}*"))
    return said


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_wrappers_prefix_is_taken_off_and_told(openclip, tmp_path, capsys, prefix):
    import_weights(openclip[0], tmp_path / "plain")
    save(openclip, {f"{prefix}{key}": value for key, value in openclip[1].items()})
    assert main(["import", str(openclip[0]), "--to", str(tmp_path / "model")]) == 0
    assert prefix in capsys.readouterr().out
    there, here = weights(tmp_path / "plain"), weights(tmp_path / "model")
    assert all(np.array_equal(there[key], here[key]) for key in there)


def test_a_sigmoid_losss_bias_is_left_out_and_told(openclip, tmp_path, capsys):
    save(openclip, openclip[1] | {"logit_bias": np.full((), -10, np.float32)})
    assert main(["import", str(openclip[0]), "--to", str(tmp_path / "model")]) == 0
    assert "logit_bias" in capsys.readouterr().out


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_unless_asked(
    openclip, tmp_path, capsys, value
):
    openclip[1][KEY][0, 0] = value
    save(openclip, openclip[1])
    said = refused(capsys, openclip[0], tmp_path / "model")
    assert KEY in said and "--allow-nonfinite" in said
    ask = ["import", str(openclip[0]), "--to", str(tmp_path / "model")]
    assert main([*ask, "--allow-nonfinite"]) == 0
    found = load_component(tmp_path / "model", "clip").params
    kernel = found["text"]["layers"]["mlp"]["up"]["kernel"]
    np.testing.assert_array_equal(kernel[0, 0, 0], np.float32(value))


@pytest.mark.parametrize("kind", ["int64", "int8", "uint8", "bool"])
def test_whole_numbers_where_floats_belong_are_refused(
    openclip, tmp_path, capsys, kind
):
    save(openclip, openclip[1] | {KEY: openclip[1][KEY].astype(kind)})
    said = refused(capsys, openclip[0], tmp_path / "model")
    assert KEY in said and kind in said


def test_a_number_beyond_float32_is_not_finite(openclip, tmp_path, capsys):
    wide = openclip[1][KEY].astype(np.float64)
    wide[0, 0] = 1e300
    save(openclip, openclip[1] | {KEY: wide})
    assert KEY in refused(capsys, openclip[0], tmp_path / "model")


@pytest.mark.parametrize(
    "group, field, value",
    [
        *(("vision_cfg", "width", v) for v in (10**9, 10**30, -1, 0, "16", None, [16])),
        *(("text_cfg", "layers", v) for v in (10**9, 0, True, 1.5, {}, "many")),
        *(("text_cfg", "mlp_ratio", v) for v in (float("nan"), float("inf"), -1, "4")),
        *(("vision_cfg", "layers", v) for v in ([], [1] * 3, [10**9] * 4, [[1]] * 4)),
        *(("model_cfg", "embed_dim", v) for v in (10**6, {"a": 1}, [[[]]])),
        *(("model_cfg", "vision_cfg", v) for v in (None, [], 3, "x")),
        *(("preprocess_cfg", "mean", v) for v in (3, [1], ["a"] * 3, [[]] * 3, "abc")),
    ],
)
def test_a_wrong_field_is_named_with_its_file(
    openclip, tmp_path, capsys, group, field, value
):
    path = openclip[0] / "open_clip_config.json"
    config = json.loads(path.read_text())
    inner = config["model_cfg"].get(group) or config.get(group)
    inner[field] = value
    path.write_text(json.dumps(config))
    said = refused(capsys, openclip[0], tmp_path / "model")
    sizes = "open_clip_model.safetensors" in said  # a size that the weights have not
    assert "open_clip_config.json" in said and field in said or sizes


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"', "", "\ufeff{}", "[" * 9999])
@pytest.mark.parametrize("name", ["open_clip_config.json", "model_index.json"])
def test_a_configuration_that_is_no_object_is_named(tmp_path, capsys, name, text):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / name).write_text(text)
    assert name in refused(capsys, tmp_path / "theirs", tmp_path / "model")


def hub(openclip, tmp_path, *snapshots, main_is=None):
    """A folder as the hub's cache has it: snapshots of links into blobs."""
    cache = tmp_path / "models--some--clip"
    (cache / "blobs").mkdir(parents=True)
    for path in openclip[0].iterdir():
        (cache / "blobs" / f"0{path.name}").write_bytes(path.read_bytes())
    for name in snapshots:
        (cache / "snapshots" / name).mkdir(parents=True)
        for path in openclip[0].iterdir():
            link = cache / "snapshots" / name / path.name
            link.symlink_to(Path("../../blobs") / f"0{path.name}")
    if main_is is not None:
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text(main_is)
    return cache


def test_a_cache_folder_of_the_hub_is_followed(openclip, tmp_path):
    cache = hub(openclip, tmp_path, "aaa", "bbb", main_is="bbb\n")
    assert snapshot_of(cache).name == "bbb" and recognise(cache) == "openclip"
    import_weights(cache, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "clip" / "config.json").read_text())
    assert config["imported"]["from"] == "models--some--clip"


@pytest.mark.parametrize("main_is", [None, "ccc", "../../blobs", ""])
def test_one_snapshot_needs_no_name_and_two_do(openclip, tmp_path, main_is):
    cache = hub(openclip, tmp_path, "aaa", main_is=main_is)
    assert snapshot_of(cache).name == "aaa"
    (cache / "snapshots" / "bbb").mkdir()
    with pytest.raises(BadInput, match=r"models--some--clip.*2 snapshots"):
        import_weights(cache, tmp_path / "model")


@pytest.mark.parametrize("config", [[], None, 3, {"model": []}, {"model": 3}, {}])
def test_our_own_component_with_a_garbled_configuration(folder, tmp_path, config):
    part = tmp_path / "prior"
    part.mkdir()
    (part / "config.json").write_text(json.dumps(config))
    weights = folder / "prior" / "model.safetensors"
    (part / weights.name).write_bytes(weights.read_bytes())
    with pytest.raises(BadInput, match=r"prior/config\.json"):
        load_component(tmp_path, "prior")


@pytest.mark.parametrize(
    "stage, field, value",
    [
        *(("decoder", "depth", v) for v in (10**9, -1, 10**30)),
        *(("decoder", "channels", v) for v in (10**9, 0, -8)),
        *(("prior", "heads", v) for v in (0, 10**9, -1)),
        *(("prior", "activation", v) for v in ("x", "\ud800")),
        *(("prior", "mlp_ratio", v) for v in (float("inf"), float("nan"), 10**400)),
        *(("decoder", "multiples", v) for v in ([1e308], [float("nan")], [1] * 500)),
    ],
)
def test_our_own_component_of_impossible_sizes(folder, tmp_path, stage, field, value):
    part = tmp_path / stage
    part.mkdir()
    config = json.loads((folder / stage / "config.json").read_text())
    inner = config["model"].get("unet") or config["model"]
    inner[field] = value
    (part / "config.json").write_text(json.dumps(config))
    weights = folder / stage / "model.safetensors"
    (part / weights.name).write_bytes(weights.read_bytes())
    with pytest.raises(BadInput, match=f"{stage}"):
        load_component(tmp_path, stage)


@pytest.mark.parametrize("kind", ["F8_E4M3", "C64", "I32", "BOOL"])
def test_our_own_component_holds_floats(folder, tmp_path, kind):
    part = tmp_path / "prior"
    part.mkdir()
    (part / "config.json").write_bytes((folder / "prior" / "config.json").read_bytes())
    flat = load_file(folder / "prior" / "model.safetensors")
    name = sorted(flat)[0]
    width = {"F8_E4M3": 1, "C64": 8, "I32": 4, "BOOL": 1}[kind]
    fields, at = {}, 0
    for key, value in flat.items():
        size = value.size * (width if key == name else 4)
        fields[key] = {
            "dtype": kind if key == name else "F32",
            "shape": list(value.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    head = json.dumps(fields).encode()
    data = struct.pack("<Q", len(head)) + head + bytes(at)
    (part / "model.safetensors").write_bytes(data)
    with pytest.raises(BadInput, match=rf"model\.safetensors.*{name}"):
        load_component(tmp_path, "prior")


def test_a_checksum_of_other_bytes_is_damage(folder, tmp_path):
    part = tmp_path / "prior"
    part.mkdir()
    for name in ("config.json", "model.safetensors"):
        (part / name).write_bytes((folder / "prior" / name).read_bytes())
    (part / "model.safetensors.sha256").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="damaged"):
        load_component(tmp_path, "prior")
    assert np.dtype(ml_dtypes.bfloat16).itemsize == 2
