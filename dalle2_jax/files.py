"""Local files and folders: names, whole writes, lines of JSON, and who is at work.

A folder in which a command works for long holds a lock, a small JSON file that names
the process and whose time of change is a sign of life. A second command is refused
while the first lives; what a dead one has left is taken over.
"""

import contextlib
import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from dalle2_jax.errors import BadInput, Failed

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a Path has lost the second stroke
LOCK = ".lock"
BEAT = 10.0  # seconds between two signs of life
STALE = 120.0  # without one, a process that cannot be looked at counts as dead
LOOK = 0.5  # seconds between two looks at the sign of another
STEAL = 16  # times that a lock is tried for while others come and go
LOG = logging.getLogger("dalle2_jax")


def local_path(text: str | os.PathLike) -> Path:
    """The path of a file or folder of this machine, with ~ resolved.

    Raises:
        BadInput: it is a URL, or empty.
    """
    path = os.fspath(text)
    if not path:
        raise BadInput("an empty path names no folder; write . for this one.")
    if URL.match(path):
        raise BadInput(
            f"{path} is a URL, and this must be a folder or file of this machine; "
            "mount the store, or copy it here, and give that path."
        )
    return Path(os.path.expanduser(path))


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A draft's path in the same folder, which takes the place of `path` at the end.

    So a reader sees the old file or the new one, never a half. No two drafts share a
    name. Nothing takes its place where the block fails, and the draft is removed.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def json_lines(path: str | os.PathLike) -> list[dict]:
    """The objects of a file of JSON lines, in order; [] where there is no file.

    A line that a crash has cut short, or that holds no object, is left out.
    """
    path = Path(path)
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    found = (_object(line) for line in text.split("\n"))
    return [one for one in found if one is not None]


def _object(line):
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


class Lock:
    """`with Lock(folder):` a folder that one process works in, or a refusal.

    Held until the block ends, by whatever way. A process that is killed leaves the file
    behind: it is taken over at once where the process can be looked at (the same
    machine), else when its signs of life have been missing for STALE seconds.

    Args:
        folder: made where it is absent.
        remedy: what to do instead, which ends the sentence of the refusal.
        name: of the lock, where a folder has several.

    Raises:
        BadInput: another process that lives holds it (names host and process), or the
            folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike, remedy: str, name: str = LOCK):
        self.folder, self.remedy = Path(folder), remedy
        self.path = self.folder.absolute() / name
        self.owner = {**myself(), "token": secrets.token_hex(8)}
        self.lost = ""
        self._end, self._seen = threading.Event(), 0.0
        self._thread = threading.Thread(target=self._live, name="lock", daemon=True)

    def __enter__(self):
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._obtain()
        except OSError as error:
            raise BadInput(
                f"{self.folder} cannot be written ({error.strerror or error}); "
                f"{self.remedy}."
            ) from error
        self._seen = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._end.set()
        self._thread.join()
        try:
            if self._ours():
                self.path.unlink(missing_ok=True)
        except OSError as problem:  # the error that ended the block matters more
            LOG.warning("%s: it could not be removed (%s)", self.path, problem)

    def check(self) -> None:
        """Raises Failed where the lock is no longer ours; call it before writing."""
        if not self.lost and not self._thread.is_alive() and not self._end.is_set():
            self.lost = "the thread that shows that this process lives has ended"
        if self.lost:
            raise Failed(
                f"{self.folder} is no longer this process's own ({self.lost}); what "
                "was saved before is kept, run the same command again to go on."
            )

    def _obtain(self):
        """Creates the file, or takes the place of one whose process is dead."""
        for _ in range(STEAL):
            if self._create(self.path):
                return
            other = _read(self.path)
            if other is None:
                continue  # it was released just now
            if self._lives(other):
                raise BadInput(self._refusal(_read(self.path) or other))
            if self._take_over(other):
                return
        raise BadInput(f"{self.path} changes hands all the time; {self.remedy}.")

    def _create(self, path):
        """Whether the file was not there and now names this process."""
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        try:
            with open(file, "w", encoding="utf-8") as out:
                out.write(json.dumps(self.owner) + "\n")
        except OSError:  # a full disk: an empty lock would keep everybody waiting
            path.unlink(missing_ok=True)
            raise
        return True

    def _take_over(self, other):
        """Replaces the lock of a dead process; False where somebody else is doing so.

        Whoever makes the file named after that lock has the right to, one at a time;
        and only while the lock is still the one that was found dead.
        """
        right = self.path.with_name(f"{self.path.name}.{other['token']}")
        if not self._create(right):
            holder = _read(right)
            if holder is not None and not self._lives(holder, right):
                right.unlink(missing_ok=True)
            time.sleep(LOOK)
            return False
        try:
            if (_read(self.path) or {}).get("token") != other["token"]:
                return False
            LOG.warning("%s: taken over from %s, which is dead", self.path, _who(other))
            right.replace(self.path)
            return True
        finally:
            right.unlink(missing_ok=True)

    def _lives(self, other, path=None):
        """Whether the process that a lock names lives."""
        known = _alive(other)
        return _beats(path or self.path, other) if known is None else known

    def _refusal(self, other):
        return (
            f"{self.folder} is in use by {_who(other)}; wait for its end or stop it, "
            f"or {self.remedy}."
        )

    def _ours(self):
        return (_read(self.path) or {}).get("token") == self.owner["token"]

    def _live(self):
        """The thread: shows that this process lives, and sees whether it is in time."""
        while not self._end.wait(BEAT):
            try:
                self.lost = self._beat()
                self._seen = time.monotonic()
            except OSError as error:
                LOG.warning("%s: no sign of life can be left (%s)", self.path, error)
                if time.monotonic() - self._seen > STALE:
                    self.lost = f"no sign of life could be left: {error}"
            if self.lost:
                LOG.error("%s: %s", self.path, self.lost)
                return

    def _beat(self):
        """One sign of life; why the lock is lost, or ""."""
        if not self._ours() and not self._create(self.path):  # somebody removed it
            return f"{_who(_read(self.path) or {})} has taken it over"
        os.utime(self.path)
        return ""


def myself() -> dict:
    """What tells this process from any other: host, machine, pid and its start."""
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def _machine():
    """Names the running kernel and the processes that can be seen here; "" unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid):
    """When a process began, in the kernel's ticks; "" where it is dead or unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]  # a zombie does no more work


def _alive(other):
    """Whether the process of a lock lives; None where it cannot be looked at."""
    ours = other["machine"] and other["machine"] == _machine()
    if not ours or not other["started"]:
        return None
    if _started(other["pid"]) == other["started"]:
        return True
    return None if _hidden(other["pid"]) else False


def _hidden(pid):
    """Whether a process is there of which another user may know no more."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not Path(f"/proc/{pid}/stat").exists()
    except (ProcessLookupError, OverflowError):
        return False
    return False


def _beats(path, other):
    """Whether a lock shows a sign of life, waiting for one until it is stale.

    Ages are told by the file system's own clock: those of two hosts may differ.
    """
    seen = _changed(path)
    if seen is None:
        return False
    left = min(STALE, STALE - (_now_at(path) - seen))
    if left > 0:
        LOG.warning("%s: looking whether %s still lives", path, _who(other))
    until = time.monotonic() + left
    while time.monotonic() < until:
        time.sleep(LOOK)
        now = _changed(path)
        if now != seen:
            return now is not None
    return False


def _now_at(path):
    """The time of the file system that a lock lies in."""
    probe = path.with_name(f"{path.name}.{secrets.token_hex(4)}.now")
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _changed(path):
    """When a file was last changed, or None without one."""
    try:
        with path.open("rb") as file:  # a network file system looks anew when opened
            return os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None


def _read(path):
    """What a lock says of its process, or None without one.

    Of a file that was cut short nothing is known but its signs of life.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    found = _object(text) or {}
    names = ("host", "machine", "started", "token")
    known = {name: str(found.get(name, "")) for name in names}
    known["token"] = re.sub(r"\W", "", known["token"]) or "damaged"
    pid = found.get("pid")
    return {**known, "pid": pid if isinstance(pid, int) else 0}


def _who(other):
    if not other.get("pid"):
        return "a process that its lock does not name"
    return f"process {other['pid']} on {other['host'] or 'an unknown host'}"
