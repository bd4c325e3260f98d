"""Weight files that attack their reader: refused, nothing run, nothing changed."""

import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import hostile
import numpy as np
import pytest
from safetensors.numpy import save_file

from dalle2_jax.cli.main import main
from dalle2_jax.convert.containers import read, read_state, state_of
from dalle2_jax.errors import BadInput


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What one process of its own made of every attack."""
    folder = tmp_path_factory.mktemp("attacks")
    hostile.write_all(folder)
    ran = subprocess.run(
        [sys.executable, str(Path(hostile.__file__)), str(folder)],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads(ran.stdout.splitlines()[-1])
    refused = sum(said != "read" for said in found["outcomes"].values())
    print(f"{len(found['outcomes'])} tried, {refused} refused")
    return found


@pytest.mark.parametrize("attack", hostile.ATTACKS)
def test_an_attack_is_refused_in_one_sentence_that_names_the_file(outcomes, attack):
    said = outcomes["outcomes"][attack]
    assert f"{attack}.pt" in said and "\n" not in said
    assert len(said) < 600


@pytest.mark.parametrize("kind", hostile.READ)
def test_what_hurts_nobody_is_read(outcomes, kind):
    assert outcomes["outcomes"][kind] == "read"


def test_no_attack_ran_anything_or_changed_the_process(outcomes):
    assert not outcomes["touched"]
    assert not outcomes["changed"]
    assert outcomes["widths"] == [2, 8]


def packed(path, members, how=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_an_archive_that_unpacks_to_much_more_is_refused(tmp_path):
    zeros = {"m/data.pkl": b"\x80\x02N.", "m/data/0": bytes(50 * 2**20)}
    path = packed(tmp_path / "zeros.pt", zeros, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**17
    with pytest.raises(BadInput, match="zeros.pt would unpack"):
        read(path)
    path = packed(tmp_path / "lzma.pt", zeros, zipfile.ZIP_LZMA)
    with pytest.raises(BadInput, match=r"lzma.pt"):
        read(path)


def test_members_that_share_their_bytes_are_counted_each(tmp_path):
    path = packed(
        tmp_path / "a.pt", {"m/data.pkl": b"\x80\x02N.", "m/data/0": bytes(9999)}
    )
    with zipfile.ZipFile(path, "a") as archive:
        for i in range(1, 40):
            info = zipfile.ZipInfo.from_file(path, f"m/data/{i}")
            first = archive.getinfo("m/data/0")
            for field in ("header_offset", "CRC", "file_size", "compress_size"):
                setattr(info, field, getattr(first, field))
            archive.filelist.append(info)
        archive._didModify = True
    with pytest.raises(BadInput, match="would unpack"):
        read(path)


def test_a_member_that_lies_about_its_size_is_refused(tmp_path):
    path = packed(
        tmp_path / "a.pt", {"m/data.pkl": b"\x80\x02N.", "m/data/0": bytes(9)}
    )
    data = bytearray(path.read_bytes())
    first = data.index(b"PK\x01\x02")  # the central directory's first entry
    for at in (first + 20, first + 24):  # its packed and its whole size
        lying = data[:at] + (2**31).to_bytes(4, "little") + data[at + 4 :]
        path.write_bytes(lying)
        with pytest.raises(BadInput, match=r"a\.pt"):
            read(path)


def test_an_import_of_an_attack_ends_with_2_and_writes_nothing(tmp_path, capsys):
    (tmp_path / "attacks").mkdir()
    hostile.write_all(tmp_path / "attacks")
    to = tmp_path / "model"
    for path in sorted((tmp_path / "attacks").iterdir()):
        assert main(["import", str(path), "--to", str(to)]) == 2, path
        assert capsys.readouterr().err.count("\n") == 1, path
        assert [p.name for p in tmp_path.iterdir()] == ["attacks"]


def test_each_storage_is_read_once(tmp_path, monkeypatch):
    views = b"}(" + b"".join(
        hostile.text(f"k{i}") + hostile.tensor(size=(4,)) for i in range(9)
    )
    hostile.write_archive(tmp_path / "shared.pt", views + b"u")
    calls = []
    plain = zipfile.ZipFile.read
    monkeypatch.setattr(
        zipfile.ZipFile,
        "read",
        lambda self, name, pwd=None: calls.append(name) or plain(self, name, pwd),
    )
    assert len(read(tmp_path / "shared.pt")) == 9
    assert calls.count("m/data/0") == 1


def test_tensors_that_show_the_file_over_and_over_are_refused(tmp_path):
    views = b"}(" + b"".join(
        hostile.text(f"k{i}") + hostile.tensor() for i in range(99)
    )
    hostile.write_archive(tmp_path / "shared.pt", views + b"u")
    with pytest.raises(BadInput, match=r"shared.pt repeats"):
        read(tmp_path / "shared.pt")


def header(path, fields, data=bytes(64)):
    text = json.dumps(fields).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize(
    "kind, bits",
    [
        *(("F8_E4M3", 8), ("F8_E5M2", 8), ("F8_E8M0", 8), ("F4", 4)),
        *(("C64", 64), ("F8_E4M3FNUZ", 8), ("F6_E2M3", 6), ("MX9", 8)),
    ],
)
def test_element_types_that_numpy_lacks_are_named(tmp_path, kind, bits):
    one = {"dtype": kind, "shape": [64], "data_offsets": [0, 8 * bits]}
    path = header(tmp_path / "a.safetensors", {"the.key": one}, bytes(8 * bits))
    with pytest.raises(BadInput, match=rf"a.safetensors.*{kind}"):
        read(path)


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "complex64", "uint16"])
def test_torch_files_of_such_types_are_named(tmp_path, kind):
    import torch

    path = tmp_path / "a.pt"
    torch.save({"k": torch.zeros(4).to(getattr(torch, kind))}, path)
    said = "ComplexFloatStorage" if kind == "complex64" else kind
    with pytest.raises(BadInput, match=rf"a.pt.*{said}"):
        read(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"a": {"dtype": "F32", "shape": [-16], "data_offsets": [0, 64]}},
        {"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 64]}},
        {"a": {"dtype": "F32", "shape": [16], "data_offsets": [0, 2**40]}},
        {"a": {"dtype": "F32", "shape": [16], "data_offsets": [64, 0]}},
        {"a": {"dtype": "F32", "shape": [1] * 80 + [16], "data_offsets": [0, 64]}},
        {"a": []},
        [],
        None,
        {"__metadata__": {"format": 3}},
    ],
)
def test_headers_that_lie_are_refused(tmp_path, fields):
    path = header(tmp_path / "a.safetensors", fields)
    with pytest.raises(BadInput, match=r"a\.safetensors"):
        read(path)


@pytest.mark.parametrize(
    "index",
    [
        *([], None, 3, "x", {}, {"weight_map": []}, {"weight_map": None}),
        *({"weight_map": {"a": 3}}, {"weight_map": {"a": None}}),
        {"weight_map": {"a": ["m.safetensors"]}},
        {"weight_map": {"a": "model.safetensors.index.json"}},
        {"weight_map": {"a": "../m.safetensors"}},
        {"weight_map": {"a": ".."}},
        {"weight_map": {"a": ""}},
        {"weight_map": {"a": "no\0such"}},
        {"weight_map": {"b": "m.safetensors"}},
    ],
    ids=str,
)
def test_an_index_that_is_none_is_named(tmp_path, index):
    save_file({"a": np.zeros(1, "f")}, tmp_path / "m.safetensors")
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    with pytest.raises(
        BadInput, match=r"model\.safetensors\.index\.json|does not exist"
    ):
        read(path)


def test_prefixes_of_wrappers_are_taken_off_and_told():
    plain = {"a.b": np.zeros(1), "module.c": np.zeros(1)}
    for prefix in ("", "module.", "_orig_mod.", "module._orig_mod.", "module.module."):
        notes = []
        state = {f"{prefix}{key}": value for key, value in plain.items()}
        found = state_of({"state_dict": state}, "x.pt", notes)
        assert found.keys() == plain.keys()
        assert bool(notes) == bool(prefix) and all(prefix in note for note in notes)


def test_numbers_of_numpy_in_a_checkpoint_are_numbers(tmp_path):
    import torch

    weights = {"w": torch.arange(3.0)}
    numbers = {
        "best": np.float64(0.25),
        "epoch": np.int64(7),
        "done": np.bool_(True),
        "half": np.float16(0.5),
        "curve": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "none": np.zeros((0, 2)),
        "big": np.array([1.0, 2.0], ">f4"),
    }
    for zipped in (True, False):
        path = tmp_path / "a.pt"
        saved = {"state_dict": weights, **numbers}
        torch.save(saved, path, _use_new_zipfile_serialization=zipped)
        found = read(path)
        for key, value in numbers.items():
            np.testing.assert_array_equal(found[key], value)
        assert type(found["epoch"]) is int and type(found["best"]) is float
        assert read_state(path)["w"].tolist() == [0, 1, 2]
