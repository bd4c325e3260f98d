"""One request to a remote store, within the time that it may take.

DALLE2_READ_SECONDS sets that time: 60, and a second more for each MiB it asks for.
"""

import asyncio
import atexit
import functools
import importlib.util
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

import fsspec

from dalle2_jax.data.store_faults import WrongAnswer, shown
from dalle2_jax.errors import BadInput, Failed

SECONDS, PER_MIB = 60.0, 1.0
VARIABLE = "DALLE2_READ_SECONDS"
SLICE = 0.2  # seconds in which a request notices that it is to end

_leaving = [False]  # no Event: a signal's handler may set it at any time
_told = []  # calls that tell other processes of this one that they leave


def leave() -> None:
    """Ends every read that is under way or waits for its next try: Failed there."""
    _leaving[0] = True
    for tell in _told:
        tell()


def when_leaving(tell: Callable) -> Callable:
    """Calls `tell` in `leave`; returns what ends that."""
    _told.append(tell)
    return functools.partial(_told.remove, tell)


def stay() -> None:
    """Reads may be made again after `leave`."""
    _leaving[0] = False


# Threads are joined before the process ends; before that they must stop trying.
getattr(threading, "_register_atexit", atexit.register)(leave)


def leaving() -> bool:
    """Whether reads are to end, as `leave` says."""
    return _leaving[0]


def patience(length: int = 0) -> float:
    """Seconds that an answer of so many bytes may take.

    Raises:
        BadInput: DALLE2_READ_SECONDS is no positive number.
    """
    text = os.environ.get(VARIABLE) or SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise BadInput(f"{VARIABLE} is {text!r}; give a number of seconds above 0.")
    return seconds + PER_MIB * length / 2**20


def told_to_stop(url: str) -> Failed:
    """What a read that `leave` ended raises."""
    return Failed(f"{shown(url)} was not read to the end: told to stop.")


def request(
    url: str, name: str, args: tuple = (), options: dict | None = None, length: int = 0
) -> Any:
    """A method of the file system of a URL, within the time that it may take.

    Args:
        url, name: what is asked, of what.
        args, options: of the method, after the path.
        length: bytes that go over the network.

    Raises:
        TimeoutError: it takes longer.
        Failed: `leave` was called.
        Whatever the store raises.
    """
    system, path = system_of(url)
    answer = _begun(system, name, functools.partial(_apply, (path, *args), options))
    until = time.monotonic() + patience(length)
    while not answer.done() and time.monotonic() < until:
        if _leaving[0]:
            answer.cancel()
            raise told_to_stop(url)
        wait([answer], timeout=SLICE)
    if not answer.done():
        answer.cancel()
        raise TimeoutError(name)
    return answer.result()


def system_of(url: str) -> tuple:
    """fsspec's file system of a URL, and the path in it. Raises what fsspec raises."""
    options = {}
    for protocol in ("http", "https"):
        there = re.search(rf"(^|::){protocol}://", url)
        if there and importlib.util.find_spec("aiohttp"):
            options[protocol] = {"client_kwargs": _client()}
    return fsspec.core.url_to_fs(url, **options)


def _client() -> dict:
    """What the HTTP client is made with; what fsspec's configuration says comes first.

    Time-outs are ours, bytes come as they lie in the file, and what is no part of a
    file is refused before it is read.
    """
    import aiohttp

    theirs = {}
    for name in ("http", "https"):  # fsspec takes both for either
        theirs |= fsspec.config.conf.get(name, {}).get("client_kwargs", {})
    headers = {"Accept-Encoding": "identity", **theirs.get("headers", {})}
    ours = {
        "timeout": aiohttp.ClientTimeout(total=None),
        "raise_for_status": _check_part,
    }
    return {**ours, **theirs, "headers": headers}


async def _check_part(response: Any) -> None:
    """Raises WrongAnswer where a server answers a range with something else."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d+)", _header(response.request_info, "Range"))
    if not asked or response.status >= 400:
        return
    first, last = map(int, asked.groups())
    if response.status == 206:
        begins = re.match(r"bytes (\d+)-", _header(response, "Content-Range"))
        if begins is None or int(begins[1]) == first:
            return
        raise WrongAnswer(f"it answers with another part, {begins[0]}, than asked")
    page, got = response.content_type == "text/html", response.content_length
    if first == 0 and got == last + 1 and not page:
        return  # the whole of a file that was asked for as a whole
    kind = "a page of HTML, perhaps of a log-in" if page else f"{got} bytes"
    raise WrongAnswer(
        f"{response.status}, {kind}, in place of {last - first + 1} bytes", got
    )


def _header(message: Any, name: str) -> str:
    return message.headers.get(name, "")


def _apply(args: tuple, options: dict | None, method: Callable) -> Any:
    return method(*args, **(options or {}))


def _begun(system: Any, name: str, apply: Callable) -> Future:
    """A call on its way: in fsspec's event loop, or else in a thread of its own."""
    if getattr(system, "async_impl", False) and not system.asynchronous:
        coroutine = apply(getattr(system, f"_{name}"))
        return asyncio.run_coroutine_threadsafe(coroutine, system.loop)
    answer: Future = Future()

    def settle() -> None:
        try:
            result = apply(getattr(system, name))
        except BaseException as error:  # raised where the answer is waited for
            answer.set_exception(error)
        else:
            answer.set_result(result)

    answer.set_running_or_notify_cancel()
    threading.Thread(target=settle, daemon=True, name="store").start()
    return answer
