"""Local paths, whole writes, and folders that one process at a time works in."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dalle2_jax import files
from dalle2_jax.errors import BadInput, Failed
from dalle2_jax.files import LOCK, Lock, json_lines, local_path, myself, replacing

URLS = ["gs://b/x", "s3://b", "hf://datasets/a/b", "file:///tmp/x", Path("gs://b/x")]
HOLD = """
import sys, time
from dalle2_jax.files import Lock
with Lock(sys.argv[1], "choose another"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("url", URLS)
def test_urls_are_no_local_paths(url):
    with pytest.raises(BadInput, match="URL"):
        local_path(url)


def test_local_paths(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/x") == tmp_path / "x"
    for plain in ("a/../b", ".", "C:/x", "a:b", "x y/[v2]"):
        assert local_path(plain) == Path(plain)
    with pytest.raises(BadInput):
        local_path("")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    with replacing(path) as one, replacing(path) as other:
        one.write_text("1")
        other.write_text("2")
    assert path.read_text() == "1"
    with pytest.raises(ZeroDivisionError), replacing(path) as draft:
        draft.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "1" and list(tmp_path.iterdir()) == [path]


def test_lines_that_were_cut_or_hold_no_object_are_left_out(tmp_path):
    path = tmp_path / "m.jsonl"
    assert json_lines(path) == []
    path.write_bytes(b'{"a": 1}\n{"b": {}\n[1]\n\xff\xfe}\n\0\0\0\n3\n{"c": 2}\n{"d"')
    assert json_lines(path) == [{"a": 1}, {"c": 2}]


def holder(folder):
    """A process that holds a folder."""
    words = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_in_use_is_refused_while_its_process_lives(tmp_path):
    process = holder(tmp_path)
    try:
        said = f"process {process.pid} on .*choose b"
        with pytest.raises(BadInput, match=said), Lock(tmp_path, "choose b"):
            pass
        process.send_signal(signal.SIGSTOP)  # a process that stands still lives, too
        with pytest.raises(BadInput, match=f"{process.pid}"), Lock(tmp_path, "x"):
            pass
    finally:
        process.kill()
    # dead and not yet reaped: a zombie does no more work
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with Lock(tmp_path, "choose b") as lock:
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
        lock.check()
    process.wait()
    assert not list(tmp_path.iterdir())


def test_it_is_free_after_its_block_however_that_ended(tmp_path):
    for kind in (None, ValueError, KeyboardInterrupt):
        try:
            with Lock(tmp_path / "new", "x"):
                if kind:
                    raise kind
        except (ValueError, KeyboardInterrupt):
            assert kind
        assert not list((tmp_path / "new").iterdir())


def left(folder, **changes):
    """A lock that somebody left behind."""
    owner = {**myself(), "token": "ab12", **changes}
    (folder / LOCK).write_text(json.dumps(owner))
    return owner


@pytest.fixture
def quick(monkeypatch):
    """Signs of life within fractions of a second."""
    for name, seconds in (("BEAT", 0.02), ("STALE", 0.3), ("LOOK", 0.02)):
        monkeypatch.setattr(files, name, seconds)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_a_number_that_another_process_has_by_now(tmp_path):
    left(tmp_path, started="1")  # our own pid, of a process that began at boot
    with Lock(tmp_path, "x"):
        pass
    left(tmp_path, pid=2**22 + 7)  # beyond the largest there can be
    with Lock(tmp_path, "x"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x", "token": "../a"}'])
def test_a_damaged_lock_is_taken_over_when_it_is_stale(tmp_path, quick, content):
    (tmp_path / LOCK).write_text(content)
    with Lock(tmp_path, "x") as lock:
        lock.check()
    assert not list(tmp_path.iterdir())


def test_on_another_host_signs_of_life_decide(tmp_path, quick, monkeypatch):
    left(tmp_path, host="far", machine="other", pid=77)
    end = threading.Event()

    def beat():
        while not end.wait(0.02):
            os.utime(tmp_path / LOCK)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(BadInput, match="process 77 on far"), Lock(tmp_path, "x"):
            pass
    finally:
        end.set()
        thread.join()
    with Lock(tmp_path, "x") as lock:  # silent since
        lock.check()


def test_the_clock_of_another_host_does_not_matter(tmp_path, quick):
    left(tmp_path, host="far", machine="other")
    os.utime(tmp_path / LOCK, (2**32, 2**32))  # of its future
    with Lock(tmp_path, "x"):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_one_of_many_takes_over(tmp_path, quick):
    left(tmp_path, started="1")
    won, refused = [], []
    ready, done = threading.Barrier(8), threading.Barrier(8)

    def attempt():
        ready.wait()
        try:
            with Lock(tmp_path, "x") as lock:
                won.append(lock)
                done.wait()
        except BadInput as error:
            refused.append(error)
            done.wait()

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and len(refused) == 7


def check_lost(lock):
    lock._thread.join(30)
    with pytest.raises(Failed, match="no longer this process's own"):
        lock.check()


def test_who_has_lost_a_folder_is_told(tmp_path, quick):
    with Lock(tmp_path, "x") as lock:
        left(tmp_path, host="far", pid=9)
        check_lost(lock)
    assert (tmp_path / LOCK).exists()  # it is not ours to remove


def test_a_lock_that_was_tidied_away_comes_back(tmp_path, quick):
    with Lock(tmp_path, "x") as lock:
        (tmp_path / LOCK).unlink()
        while not (tmp_path / LOCK).exists():
            lock.check()
        lock.check()
    assert not list(tmp_path.iterdir())


def test_signs_of_life_that_cannot_be_left_end_the_work(tmp_path, quick, monkeypatch):
    def broken(path):
        raise OSError("gone")

    with Lock(tmp_path, "x") as lock:
        monkeypatch.setattr(os, "utime", broken)
        check_lost(lock)


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(BadInput, match="cannot be written"),
        Lock(tmp_path / "file", "x"),
    ):
        pass
