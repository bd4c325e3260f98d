"""`dalle2 launch`: one verb in several processes of this machine, on its CPU."""

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time

NAME = "launch"
HELP = (
    "Run a verb as N processes on this machine's CPU, as a pod would on N hosts.\n"
    "SIGTERM is passed on; when one process dies, all are ended."
)
EXAMPLE = (
    "dalle2 launch --processes 2 --devices-per-process 2 -- train\n"
    "         --config configs/clip.py:small --data 'shards/{00000..00009}.tar'\n"
    "         --workdir runs/clip"
)
GRACE = 10.0  # seconds that the others have to end by themselves after one failed
PREEMPTED = 75
SET_PDEATHSIG = 1  # of Linux's prctl
DEVICES = "--xla_force_host_platform_device_count"


def add_arguments(parser):
    """The flags of `dalle2 launch`."""
    parser.add_argument("--processes", type=int, required=True, help="how many")
    parser.add_argument(
        "--devices-per-process", type=int, default=1, help="virtual CPU devices of each"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    parser.add_argument("words", nargs="+", metavar="-- VERB ...", help="what to run")


def run(args):
    """Runs the processes to their end; exits with their code."""
    from dalle2_jax.errors import BadInput

    if args.processes < 1 or args.devices_per_process < 1:
        raise BadInput("--processes and --devices-per-process must be at least 1.")
    command = [sys.executable, "-m", "dalle2_jax.cli.main", *args.words]
    places = environments(args.processes, args.devices_per_process, free_port())
    if args.dry_run:
        for place in places:
            words = [f"{name}={shlex.quote(value)}" for name, value in place.items()]
            print(" ".join(words), shlex.join(command))
        return
    sys.exit(watch([start(command, place, i) for i, place in enumerate(places)]))


def environments(count, devices, port):
    """What each process finds in its environment, as a list of dicts."""
    flags = re.sub(rf"{DEVICES}=\d+", "", os.environ.get("XLA_FLAGS", "")).strip()
    shared = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{flags} {DEVICES}={devices}".strip(),
        # a collective in flight blocks a pool thread: too few of them deadlock
        "PJRT_NPROC": str(max(32, 4 * devices)),
        "JAX_COORDINATOR_BIND_ADDRESS": f"127.0.0.1:{port}",
        "DALLE2_COORDINATOR": f"127.0.0.1:{port}",
        "DALLE2_NUM_PROCESSES": str(count),
    }
    return [{**shared, "DALLE2_PROCESS_ID": str(i)} for i in range(count)]


def free_port():
    """A port that nobody listened on a moment ago."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command, place, index):
    """One process in a session of its own, its lines marked with its number."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **place, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )
    for source, sink in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
        copy = threading.Thread(target=_copy, args=(source, sink, index))
        copy.start()
    return process


def watch(processes):
    """Waits for all; the exit code: 0, 75, or that of the first that failed.

    SIGTERM and ctrl-C are passed on as SIGTERM, which leads to a checkpoint; a second
    ctrl-C ends everything at once.
    """
    asked = []

    def pass_on(number, frame):
        again = number == signal.SIGINT and signal.SIGINT in asked
        asked.append(number)
        _send(processes, signal.SIGKILL if again else signal.SIGTERM)

    signals = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, pass_on) for number in signals}
    failed = _outlive(processes)
    for number, handler in before.items():
        signal.signal(number, handler)
    codes = [process.returncode for process in processes]
    code = failed if failed is not None else max(codes)
    return code if code >= 0 else 128 - code


def _outlive(processes):
    """Waits until all have ended: the code of the first that failed, or None."""
    failed, since = None, 0.0
    while any(process.poll() is None for process in processes):
        codes = [process.poll() for process in processes]
        bad = [code for code in codes if code not in (None, 0, PREEMPTED)]
        if bad and failed is None:
            failed, since = bad[0], time.monotonic()
        if bad and time.monotonic() - since > GRACE:
            _send(processes, signal.SIGKILL)
        time.sleep(0.1)
    codes = [process.returncode for process in processes]
    bad = [code for code in codes if code not in (0, PREEMPTED)]
    return failed if failed is not None else next(iter(bad), None)


def _die_with_parent():
    """On Linux, a launcher that is killed takes its processes along."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGKILL)


def _send(processes, number):
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def _copy(source, sink, index):
    for line in source:
        sink.write(f"[{index}] {line}")
        sink.flush()
