"""Weight files: every container read, none of them run, damage said in one sentence."""

import json
import os
import pickle
import zipfile
from typing import NamedTuple

import ml_dtypes
import numpy as np
import packaging.version
import pytest
import torch
from safetensors.numpy import save_file

from dalle2_jax.convert.containers import dtypes_of, read, read_state, weights_in, write
from dalle2_jax.errors import BadInput

RNG = np.random.default_rng(0)
STATE = {
    "a.weight": RNG.standard_normal((3, 4), np.float32),
    "a.bias": RNG.standard_normal(3).astype(np.float16),
    "b": RNG.standard_normal((2, 2, 5)).astype(ml_dtypes.bfloat16),
    "count": np.asarray(7),
}


def tensors():
    """STATE for torch."""
    plain = {k: v for k, v in STATE.items() if k != "b"}
    found = {key: torch.tensor(value) for key, value in plain.items()}
    return found | {"b": torch.tensor(STATE["b"].astype("f")).bfloat16()}


def check(found):
    assert found.keys() == STATE.keys()
    for key, value in STATE.items():
        assert found[key].dtype == value.dtype
        np.testing.assert_array_equal(found[key], value)


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files(tmp_path, zipped):
    saved = {"state_dict": tensors(), "step": 3, "names": ["x", (1, None)]}
    path = tmp_path / "model.ckpt"
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    assert read(path)["step"] == 3 and read(path)["names"] == ["x", (1, None)]
    check(read_state(path))
    assert dtypes_of(read_state(path)) == ["bfloat16", "float16", "float32"]


def test_views_share_a_storage(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    views = {"t": base.T, "row": base[1:3, ::2], "p": torch.nn.Parameter(base[0])}
    torch.save(views, tmp_path / "views.pt")
    found = read(tmp_path / "views.pt")
    for key, view in views.items():
        np.testing.assert_array_equal(found[key], view.detach().numpy())


def test_shards(tmp_path):
    keys = sorted(STATE)
    save_file({k: STATE[k] for k in keys[:2]}, tmp_path / "m-1.safetensors")
    save_file({k: STATE[k] for k in keys[2:]}, tmp_path / "m-2.safetensors")
    places = {k: f"m-{1 + (i > 1)}.safetensors" for i, k in enumerate(keys)}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    assert weights_in(tmp_path) == index
    check(read(index))
    (tmp_path / "m-2.safetensors").unlink()
    with pytest.raises(BadInput, match="m-2.safetensors does not exist; download"):
        read(index)
    save_file({"x": STATE["b"]}, tmp_path / "m-2.safetensors")
    with pytest.raises(BadInput, match="expects b in m-2.safetensors|expects count"):
        read(index)
    index.write_text(json.dumps({"weight_map": {"a": "../m.safetensors"}}))
    with pytest.raises(BadInput, match="not beside it"):
        read(index)


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_a_half_downloaded_file_is_said_to_be_one(tmp_path, kind):
    path = tmp_path / f"model.{kind}"
    torch.save(tensors(), path) if kind == "pt" else save_file(STATE, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadInput, match="incomplete or damaged .*download it again"):
        read(path)


def test_a_pointer_is_not_the_file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(BadInput, match="git-lfs pointer"):
        read(path)
    with pytest.raises(BadInput, match="holds no weights"):
        weights_in(tmp_path / "nowhere")


class Touch:
    """Pickled, it asks whoever loads it to make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, zipped):
    path, target = tmp_path / "model.pt", tmp_path / "touched"
    saved = {"state_dict": tensors(), "x": Touch(target)}
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(BadInput, match="os.mkdir|posix.mkdir"):
        read(path)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists()  # it was a real one


@pytest.mark.parametrize(
    "size, stride, offset",
    [((3, 3), (3, 1), 0), ((2,), (1,), 7), ((2, 2), (-1, 1), 4), ((1,), (1,), -4)],
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, size, stride, offset):
    class Tensor:
        def __reduce__(self):
            storage = Storage()
            rebuild = torch._utils._rebuild_tensor_v2
            return rebuild, (storage, offset, size, stride, False, None)

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                return "storage", torch.FloatStorage, "0", "cpu", 8
            return None

    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("m/data.pkl", "w") as file:
            Pickler(file, protocol=2).dump({"a": Tensor()})
        archive.writestr("m/data/0", np.zeros(8, "f").tobytes())
    with pytest.raises(BadInput, match="no file of tensors"):
        read(path)


def test_other_archives_and_texts_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "nothing")
    with pytest.raises(BadInput, match="no file of torch's"):
        read(path)
    path.write_text("not weights")
    with pytest.raises(BadInput, match="cannot be read as weights"):
        read(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_is_needed_to_write_its_files_and_not_to_read_them(
    tmp_path, monkeypatch, zipped
):
    path = tmp_path / "model.pt"
    torch.save(tensors(), path, _use_new_zipfile_serialization=zipped)
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    check(read(path))
    with pytest.raises(BadInput, match=r"pip install 'dalle2_jax\[torch\]'"):
        write(tmp_path / "other.pt", STATE)


class _Version(NamedTuple):  # as packaging 21 had it
    epoch: int
    release: tuple
    local: None


class Version:  # the public files are of that time
    def __init__(self, text):
        self._version = _Version(0, tuple(map(int, text.split("."))), None)


@pytest.mark.parametrize("era", ["2022", "today"])
def test_a_trainers_checkpoint_opens_without_its_classes(tmp_path, era, monkeypatch):
    version = packaging.version.Version("1.10.4")
    if era == "2022":
        version = Version("1.10.4")
        for kind in (Version, _Version):
            monkeypatch.setattr(kind, "__module__", "packaging.version")
            monkeypatch.setattr(packaging.version, kind.__name__, kind, raising=False)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))])
    path = tmp_path / "latest.pth"
    held = {"model": tensors(), "version": version, "warmup": optimizer}
    torch.save(held, path)
    found = read(path)
    assert str(found["version"]) == "1.10.4"
    assert not isinstance(found["warmup"], torch.optim.Optimizer)
    check(found["model"])
