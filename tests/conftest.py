"""Eight virtual devices on one CPU, set before jax is first imported."""

import os
import tempfile
from pathlib import Path

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
flags = os.environ.get("XLA_FLAGS", "")
if "host_platform_device_count" not in flags:
    os.environ["XLA_FLAGS"] = (
        f"{flags} --xla_force_host_platform_device_count=8".strip()
    )
# Each collective in flight blocks a pool thread; with fewer threads than devices,
# loops of steps deadlock.
os.environ.setdefault("PJRT_NPROC", "32")
cache = Path(tempfile.gettempdir()) / "dalle2_jax_tests_cache"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Tar shards of a small generated world."""
    from dalle2_jax.data.write_shapes import make_shapes

    folder = tmp_path_factory.mktemp("data") / "simple"
    return make_shapes("simple", 256, seed=0, out_dir=folder, shard_size=128)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The model directory of a small random model; nobody may change it."""
    from small_model import save_small_model

    return save_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def model(folder):
    """The same model, loaded."""
    from dalle2_jax.unclip import load

    return load(folder)


@pytest.fixture(autouse=True)
def at_home(monkeypatch):
    """Tests run from the project's root, wherever pytest was started."""
    monkeypatch.chdir(Path(__file__).resolve().parent.parent)


@pytest.fixture(autouse=True, scope="module")
def forgotten():
    """Programs are dropped with the module that compiled them.

    Each is some memory maps, of which Linux allows a process 65,530; at that number the
    compiler aborts.
    """
    import jax

    yield
    jax.clear_caches()
