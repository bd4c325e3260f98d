"""`dalle2 launch`: what each process is given, and that none outlives the others."""

import os
import signal
import sys

import pytest
from launched import DALLE2, ended, started

from dalle2_jax.cli import launch
from dalle2_jax.cli.main import main


def run_of(*programs):
    """The exit code of Python programs launched together."""
    place = launch.environments(1, 1, 1)[0]
    command = [sys.executable, "-c"]
    made = [launch.start([*command, p], place, i) for i, p in enumerate(programs)]
    return launch.watch(made)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(launch, "GRACE", 0.2)


FOREVER = "import time; time.sleep(1000)"


@pytest.mark.parametrize(
    "programs, code",
    [
        (["", ""], 0),
        (["exit(75)", "exit(75)"], 75),
        (["exit(2)", FOREVER], 2),
        (["import os; os.kill(os.getpid(), 9)", FOREVER], 137),
        (["exit(75)", "exit(1)"], 1),
    ],
)
def test_the_exit_code_is_that_of_the_first_that_failed(programs, code):
    assert run_of(*programs) == code


def test_sigterm_is_passed_on():
    told = "import os, signal; os.kill(os.getppid(), signal.SIGTERM); signal.pause()"
    patient = f"import signal; signal.signal(15, lambda *_: exit(75)); {told}"
    assert run_of(patient) == 75
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_lines_are_marked_with_their_process(capfd, monkeypatch):
    monkeypatch.setattr(launch.sys, "stdout", sys.__stdout__)
    assert run_of("print('a')", "print('b')") == 0
    for thread in list(launch.threading.enumerate()):
        if thread is not launch.threading.main_thread() and "_copy" in thread.name:
            thread.join()
    assert {"[0] a", "[1] b"} <= set(capfd.readouterr().out.split("\n"))


def test_a_dry_run_prints_what_each_process_would_be(capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--xla_a=1 {launch.DEVICES}=8")
    words = ["--processes", "2", "--devices-per-process", "3", "--dry-run"]
    assert main(["launch", *words, "--", "train", "--config", "c.py"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "DALLE2_PROCESS_ID=0" in first and "DALLE2_PROCESS_ID=1" in second
    assert f"XLA_FLAGS='--xla_a=1 {launch.DEVICES}=3'" in first
    assert first.endswith("-m dalle2_jax.cli.main train --config c.py")


def test_doctor_of_two_processes():
    sizes = ["--processes", "2", "--devices-per-process", "2"]
    code, output = ended(started([*DALLE2, "launch", *sizes, "--", "doctor"]))
    assert code == 0, output
    assert "[1] found: flags, process 1 of 2" in output
    assert "devices: 4 x cpu, processes 2 with 2, 2" in output
    assert output.count("all-reduce: 4, right") == 2


def test_doctor_reads_data_and_names_what_it_cannot(shards, tmp_path, capsys):
    assert main(["doctor", "--data", str(shards[0]), "--workdir", str(tmp_path)]) == 0
    assert f"data: {shards[0]} can be read" in capsys.readouterr().out
    assert main(["doctor", "--data", str(tmp_path / "none.tar")]) == 1
    assert "none.tar" in capsys.readouterr().err
    assert main(["doctor", "--workdir", str(tmp_path / "none")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_flags_set_in_part_are_bad_usage(capsys):
    assert main(["doctor", "--num-processes", "2"]) == 2
    assert "--coordinator" in capsys.readouterr().err
    assert os.environ.get("DALLE2_NUM_PROCESSES") is None
