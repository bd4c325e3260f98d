"""What a verb does before it first touches jax."""

import os
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
    if not flags.FLAGS.is_parsed():  # grain's workers read absl flags
        flags.FLAGS.mark_as_parsed()


def add_process_flags(parser):
    """The flags of verbs that run on several hosts; `join` reads them."""
    group = parser.add_argument_group(
        "several processes",
        "detected on TPU pods, Slurm, GKE and Open MPI; elsewhere give all three to "
        "each process (or DALLE2_COORDINATOR, DALLE2_NUM_PROCESSES, DALLE2_PROCESS_ID)",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0")
    group.add_argument("--num-processes", type=int, metavar="N", help="in all")
    group.add_argument("--process-id", type=int, metavar="I", help="this one, from 0")
    group.add_argument(
        "--connect-seconds",
        type=float,
        metavar="S",
        help="in which they must find each other (or DALLE2_CONNECT_SECONDS; 300)",
    )


def join(args):
    """`start_jax`, then this process's Place among those of the run."""
    start_jax()
    from dalle2_jax.shard.processes import start_processes

    three = (args.coordinator, args.num_processes, args.process_id)
    return start_processes(*three, args.connect_seconds)
