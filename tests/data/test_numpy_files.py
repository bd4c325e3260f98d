"""Files of numpy: read as plain arrays, or refused in one sentence."""

import io
import zipfile

import numpy as np
import pytest

from dalle2_jax.data.numpy_files import array_in, arrays_of, mapped
from dalle2_jax.errors import BadInput


def npy(array):
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


WHOLE = npy(np.arange(6.0).reshape(2, 3))
HEADER = WHOLE[: WHOLE.index(b"\n") + 1]
WRONG = [b"", b"words", WHOLE[:50], WHOLE[:-1], npy(np.array([{}], object))]
WRONG += [HEADER.replace(b"(2, 3)", b"(9**9"), HEADER.replace(b"(2, 3)", b"(-2,3)")]
WRONG += [HEADER.replace(b"(2, 3), }  ", b"(2**62, 8)}")]
WRONG += [HEADER.replace(b"(2, 3), }          ", b"(9999999999999999)}")]


def test_an_array_comes_back(tmp_path):
    (tmp_path / "a.npy").write_bytes(WHOLE)
    for found in (array_in(WHOLE), mapped(tmp_path / "a.npy")):
        np.testing.assert_array_equal(found, np.arange(6.0).reshape(2, 3))
    np.savez(tmp_path / "a.npz", one=np.ones(2), two=np.zeros(3))
    found = arrays_of(tmp_path / "a.npz", "one".__eq__)
    assert found["two"] is None and found["one"].tolist() == [1, 1]


@pytest.mark.parametrize("data", WRONG)
def test_what_is_no_array_is_refused(tmp_path, data):
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"a\.npy"):
        mapped(path)
    with pytest.raises(ValueError, match="npy"):
        array_in(data)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as out:
        out.writestr("one.npy", data)
    with pytest.raises(BadInput, match=r"a\.npz"):
        arrays_of(tmp_path / "a.npz")


def test_what_is_not_there_is_named(tmp_path):
    for read in (mapped, arrays_of):
        with pytest.raises(BadInput, match="absent"):
            read(tmp_path / "absent")
