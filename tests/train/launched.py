"""Runs of `dalle2 train` in processes of their own, for tests that end them."""

import os
import subprocess
import sys
import time
from pathlib import Path

from dalle2_jax.cli.main import main

DALLE2 = [sys.executable, "-m", "dalle2_jax.cli.main"]
PATIENCE = 300  # seconds after which a run is taken to hang
TINY = (
    "model.text.depth=1",
    "model.image.width=16",
    "data.size=32",
    "batch=8",
    "optim.rate=1e-3",
    "optim.warmup=0",
    "log_every=1",
    "save_every=2",
    "keep=2",
    "mesh.fsdp=2",
)


def train_words(shards, workdir, *changes):
    """The command line of a tiny CLIP run."""
    words = ["train", "--config", "configs/clip.py:small", "--data"]
    words += [*map(str, shards), "--workdir", str(workdir)]
    return words + [f"--config.{change}" for change in (*TINY, *changes)]


def alone(words, devices=2):
    """One process with some virtual devices; its output goes nowhere."""
    flag = f"--xla_force_host_platform_device_count={devices}"
    return started([*DALLE2, *words], XLA_FLAGS=flag)


def together(processes, devices, words):
    """Several processes with some virtual devices each, through `dalle2 launch`."""
    sizes = ["--processes", str(processes), "--devices-per-process", str(devices)]
    return started([*DALLE2, "launch", *sizes, "--", *words])


def started(command, **environment):
    """A process whose output is read by `ended`."""
    return subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process):
    """(exit code, output) of a process once it has ended."""
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return process.returncode, output


def finished(process):
    """Waits for a run that must succeed."""
    code, output = ended(process)
    assert code == 0, output


def children(process):
    """{process id of the run: pid} of a launcher."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    found = {}
    for pid in map(int, listed.split()):
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        named = dict(entry.split("=", 1) for entry in environment if "=" in entry)
        found[int(named["DALLE2_PROCESS_ID"])] = pid
    return found


def wait_until(happened, process):
    """Waits until something happened, or the process has ended: whether it happened."""
    until = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < until, "nothing happened"
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    return True


def digest_line(workdir, capsys):
    """What `dalle2 inspect --digest` prints of a run."""
    capsys.readouterr()
    assert main(["inspect", str(workdir), "--digest"]) == 0
    return capsys.readouterr().out
