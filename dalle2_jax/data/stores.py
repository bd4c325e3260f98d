"""Remote stores: whatever fsspec reads, lists or writes is asked for here.

A failure that may pass (5xx, 429, a cut or late answer, an answer of another length
than asked) is tried again with growing pauses; after the last try, or at once where
no try can help, it is one sentence with the address, the reason and the remedy.

At most AT_ONCE requests of a process are under way at a time; `store_requests` says
how long one may take.
"""

import functools
import io
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dalle2_jax.data.store_faults import Fault, WrongAnswer, fault_of, shown
from dalle2_jax.data.store_requests import (
    SLICE,
    leaving,
    patience,
    request,
    system_of,
    told_to_stop,
)
from dalle2_jax.errors import BadInput, Failed

TRIES = 5
PAUSE = 1.0  # seconds after the first try; doubled after each
MOST_PAUSE = 60.0  # of what a store may ask for
AT_ONCE = 16
THREADS = 8  # that index shards
BLOCK = 5 * 2**20  # bytes read ahead
MOST_WHOLE = 2**30  # bytes of a file that is read at once
QUIET = 10.0  # seconds between words about tries
FIELDS = "etag", "ETag", "mtime", "updated", "created", "blob_id", "Last-Modified"

_slots = threading.BoundedSemaphore(AT_ONCE)
_spoken = [0.0]  # when a try was last told of


def _renew() -> None:
    """A forked process has requests of its own."""
    global _slots
    _slots = threading.BoundedSemaphore(AT_ONCE)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def is_url(path: object) -> bool:
    """Whether fsspec and not the file system reads this path."""
    return "://" in str(path)


def beside(url: str, ending: str) -> str:
    """The URL of a file next to another; a query, as of a token, stays at the end."""
    path, mark, query = url.partition("?" if re.match("https?://", url) else "\0")
    return f"{path}{ending}{mark}{query}"


def pause(seconds: float) -> bool:
    """Waits before another try; True at once where no try is to follow (`leave`)."""
    until = time.monotonic() + seconds
    while not leaving() and time.monotonic() < until:
        time.sleep(min(SLICE, max(0.0, until - time.monotonic())))
    return leaving()


def in_parallel(call: Callable, items: Iterable) -> list:
    """[call(item), ...] by THREADS threads; the first error ends it, as ctrl-C does.

    What is under way then goes on for itself, and nobody waits for it.
    """
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="index")
    try:
        return list(pool.map(call, items))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def info(url: str) -> dict:
    """What a store says of one file; "size" in bytes is always there.

    Raises:
        BadInput: no such file, no right to it, or a server without lengths or ranges.
        Failed: the store does not answer.
    """
    found = _ask(url, functools.partial(_info, url))
    if found.get("type") == "directory":
        raise BadInput(f"{shown(url)} is a folder, and no file.")
    if found.get("size") is None:
        raise _no_length(url)
    if found.get("partial") is False:
        raise _no_ranges(url)
    return found


def stamp(url: str) -> list:
    """What a remote file is recognised by: its length and marks of its version."""
    found = info(url)
    return [found["size"], *(found.get(name) for name in FIELDS)]


def read(url: str, offset: int, length: int) -> bytes:
    """Exactly these bytes of a file.

    Raises:
        BadInput: they cannot be had, as in `info`.
        Failed: the store does not answer, or not with as many bytes, in TRIES tries.
    """
    if length <= 0:
        return b""
    return _ask(url, functools.partial(_part, url, offset, length), length)


def read_whole(url: str) -> bytes:
    """The bytes of a file of at most MOST_WHOLE. Raises as `read`."""
    size = _ask(url, functools.partial(request, url, "info")).get("size")
    if size is None:
        raise _no_length(url)
    if size > MOST_WHOLE:
        raise BadInput(f"{shown(url)} has {size} bytes, which is too many.")
    return _ask(url, functools.partial(_all, url, size), size)


def open_file(url: str) -> io.BufferedReader:
    """A file that can be sought in; BLOCK bytes are read ahead.

    Its reads raise OSError where `read` raises BadInput, which is that error's cause:
    whoever looks at the bytes must not take it for a fault of theirs.
    """
    return io.BufferedReader(_Ranges(url, info(url)["size"]), BLOCK)


def matches(pattern: str) -> list[str]:
    """The URLs that a glob names, sorted; itself where it is none.

    Raises:
        BadInput: its folder cannot be listed.
        Failed: the store does not answer.
    """
    http = re.match("https?://", pattern)
    letters, searched = ("*[", pattern.partition("?")[0]) if http else ("*?[", pattern)
    if not any(letter in searched for letter in letters):
        return [pattern]
    return sorted(_ask(pattern, functools.partial(_listed, pattern)))


def write(url: str, data: bytes) -> None:
    """Writes a file whole. Raises as `read`."""
    call = functools.partial(request, url, "pipe_file", (data,), length=len(data))
    _ask(url, call, len(data), "written")


class _Ranges(io.RawIOBase):
    """The raw side of `open_file`."""

    def __init__(self, url: str, size: int):
        self.url, self.size, self.place = url, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.size}
        self.place = max(0, base[whence] + offset)
        return self.place

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self.size - self.place))
        try:
            buffer[:length] = read(self.url, self.place, length)
        except BadInput as error:
            raise OSError(str(error)) from error
        self.place += length
        return length


def _ask(url: str, call: Callable, length: int = 0, verb: str = "read") -> Any:
    """call(), tried again while that may help."""
    seconds = patience(length)
    for attempt in range(TRIES):
        if leaving():
            raise told_to_stop(url)
        try:
            with _slots:
                return call()
        except (BadInput, Failed):
            raise
        except Exception as error:  # each store has errors of its own
            fault, problem = fault_of(error, url, seconds), error
        if not fault.again:
            raise BadInput(
                f"{shown(url)} cannot be {verb} ({fault.reason}); {fault.remedy}."
            ) from problem
        if attempt < TRIES - 1:
            _before_next(url, fault, attempt)
    raise Failed(
        f"{shown(url)} cannot be {verb} ({fault.reason}) after {TRIES} tries; run the "
        "same command again when the store answers"
        f"{', or ' + fault.remedy if fault.remedy else ''}."
    ) from problem


def _before_next(url: str, fault: Fault, attempt: int) -> None:
    """Waits, and says so now and then, from the second wait on."""
    seconds = min(max(PAUSE * 2**attempt, fault.pause), MOST_PAUSE)
    now = time.monotonic()
    if seconds > PAUSE and now - _spoken[0] > QUIET:
        _spoken[0] = now
        said = f"{shown(url)}: {fault.reason}; trying again in {seconds:g} s"
        print(said, file=sys.stderr, flush=True)
    if pause(seconds):
        raise told_to_stop(url)


def _info(url: str) -> dict:
    found = request(url, "info")
    page = found.get("mimetype") == "text/html"
    if page and not re.search(r"\.html?(\?|$)", url):
        raise WrongAnswer("a page of HTML, perhaps of a log-in, in place of the file")
    return found


def _part(url: str, offset: int, length: int) -> bytes:
    try:
        span = {"start": offset, "end": offset + length}
        return _of_length(request(url, "cat_file", (), span, length), length)
    except WrongAnswer as problem:
        if (problem.got or 0) > length and problem.got == _info(url).get("size"):
            raise _no_ranges(url) from problem
        raise


def _all(url: str, size: int) -> bytes:
    return _of_length(request(url, "cat_file", length=size), size)


def _of_length(data: bytes, length: int) -> bytes:
    if len(data) != length:
        raise WrongAnswer(f"{len(data)} bytes in place of {length}", len(data))
    return data


def _no_length(url: str) -> BadInput:
    return BadInput(
        f"{shown(url)} cannot be read: its server does not say how long it is; copy it "
        "here, or to a store that does."
    )


def _no_ranges(url: str) -> BadInput:
    return BadInput(
        f"{shown(url)} cannot be read in parts: its server has no ranges and would "
        "send the whole file for each sample; copy the files here, or to a store that "
        "has ranges."
    )


def _listed(pattern: str) -> list[str]:
    """The URLs that a glob names now; raises where its folder cannot be listed.

    Globs of fsspec leave out what cannot be listed, without a word.
    """
    options = {"on_error": "raise"} if re.match("https?://", pattern) else {}
    names = request(pattern, "glob", (), options)
    if not names:
        folder = re.split(r"[*?[]", pattern)[0].rpartition("/")[0] + "/"
        request(folder, "ls", (), {"detail": False})
        names = request(pattern, "glob", (), options)
    system, _ = system_of(pattern)
    return [system.unstrip_protocol(name) for name in names]
