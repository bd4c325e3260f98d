"""The page of the small model on a free port of loopback, in a process of its own."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

SECONDS = 120  # that its start may take


def free_port():
    """A port that nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def served(folder, out):
    """Runs `dalle2 demo` and gives its address; asks it to end afterwards."""
    port = free_port()
    words = ["demo", "--model", str(folder), "--port", str(port), "--out", str(out)]
    command = [sys.executable, "-m", "dalle2_jax.cli.main", *words]
    env = os.environ | {"XLA_FLAGS": ""}
    with open(out.with_suffix(".log"), "w") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, env=env)
    try:
        wait_for(f"http://127.0.0.1:{port}/", child, out.with_suffix(".log"))
        yield f"http://127.0.0.1:{port}/"
    finally:
        child.terminate()
        child.wait(60)


def wait_for(address, child, log):
    """Returns when the address answers; fails with the log where it does not."""
    for _ in range(SECONDS * 4):
        if child.poll() is not None:
            break
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    raise AssertionError(log.read_text())
