"""Eight virtual devices on one CPU, set before jax is first imported."""

import os
import tempfile
from pathlib import Path

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
