"""What a verb does before it first touches jax."""

import os
import sys
from pathlib import Path


def start_jax():
    """Points jax at a cache of compiled programs, unless the environment names one."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(home / "dalle2_jax" / "xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")
    # tensorstore, grain and XLA speak at length on stderr; warnings still come through
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

    import logging as standard

    from absl import flags, logging

    # orbax raises a failed write once; its threads and tasks would say it hundreds of
    # times more, with tracebacks
    logging.set_verbosity(logging.FATAL)
    standard.getLogger("asyncio").setLevel(standard.CRITICAL)
    sys.unraisablehook = _unraisable
    if not flags.FLAGS.is_parsed():  # grain's workers read absl flags
        flags.FLAGS.mark_as_parsed()


def _unraisable(found):
    """What Python says of errors that nobody can catch, less closed event loops."""
    if not isinstance(found.exc_value, RuntimeError):
        sys.__unraisablehook__(found)
