"""Looks at the coordinator's address before jax does, which would abort the process.

jax's client ends in a C++ stack when nobody answers in its time, and its server in a
segmentation fault when the port is taken; what can be known before is said here.
"""

import errno
import math
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from dalle2_jax.errors import BadInput, Failed

CONNECT_SECONDS = 300.0  # a peer may still be pulling its container
FLAG, VARIABLE = "--connect-seconds", "DALLE2_CONNECT_SECONDS"
BIND = "JAX_COORDINATOR_BIND_ADDRESS"  # jax's own
PROBE = 5.0  # seconds of one try
PAUSES = 0.5, 5.0  # seconds between tries: the first one, and the longest
SAY = 60.0  # seconds between words about waiting
SLICE = 0.2  # seconds in which ctrl-C is noticed
MOST_PORT = 65535
HOST = re.compile(r"[^\s/@\[\]:%]+|\[[0-9A-Fa-f:.]+(%\w+)?\]")


class Address(NamedTuple):
    """Where process 0 listens; host: without the brackets of IPv6."""

    host: str
    port: int


def parse_address(text: str, name: str) -> Address:
    """ "HOST:PORT", "[IPv6]:PORT" -> Address.

    name: of the flag that it was given with.

    Raises:
        BadInput: it is neither, or there is no such port.
    """
    host, _, port = str(text).rpartition(":")
    if not HOST.fullmatch(host) or not re.fullmatch("[0-9]+", port):
        raise BadInput(
            f"{name} is {text!r}; it must be HOST:PORT, as in 10.0.0.1:29500 or "
            "[::1]:29500."
        )
    if not 1 <= int(port) <= MOST_PORT:
        raise BadInput(
            f"{name} is {text!r}, and there is no port {port}; take one from 1 to "
            f"{MOST_PORT}."
        )
    return Address(host.strip("[]"), int(port))


def connect_seconds(given: float | None) -> float:
    """Seconds in which processes must find each other, from the flag or environment.

    Raises:
        BadInput: no number above 0.
    """
    found = os.environ.get(VARIABLE) or CONNECT_SECONDS if given is None else given
    try:
        seconds = float(found)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise BadInput(
            f"{FLAG} ({VARIABLE}) is {found!r}; give a number of seconds above 0."
        )
    return seconds


def look_at(address: Address, index: int, seconds: float) -> None:
    """Sees that process `index` can begin: process 0 to listen, others to reach it.

    Raises:
        Failed: the port is taken, or there is no answer within `seconds`.
    """
    until = time.monotonic() + seconds
    if index == 0:
        check_free(address.port)
        _until(resolved, address, until, seconds)
    else:
        _until(reached, address, until, seconds)


def check_free(port: int) -> None:
    """Raises Failed where this machine cannot listen on a port."""
    bound = re.fullmatch(r"(.+):(\d+)", os.environ.get(BIND, ""))
    host, port = (bound[1].strip("[]"), int(bound[2])) if bound else ("::", port)
    try:
        _bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            remedy = "choose another port for all processes, or end what listens there"
        else:
            remedy = "choose another port for all processes"
        raise Failed(
            f"port {port} cannot be listened on ({error.strerror or error}); {remedy}."
        ) from error


def _bind(host: str, port: int) -> None:
    """Binds as gRPC will, which without IPv6 takes IPv4."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        if host != "::" or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        _bind("0.0.0.0", port)


def resolved(address: Address, seconds: float) -> None:
    """Asks for the numbers of a name. Raises OSError, TimeoutError among them."""
    call = (address.host, address.port, 0, socket.SOCK_STREAM)
    within(seconds, lambda: socket.getaddrinfo(*call))


def reached(address: Address, seconds: float) -> None:
    """Connects once. Raises OSError, TimeoutError among them."""
    resolved(address, seconds)
    socket.create_connection(address, timeout=seconds).close()


def _until(call: Callable, address: Address, until: float, seconds: float) -> None:
    """Tries until it is too late; says that it waits."""
    pause, said = PAUSES[0], -math.inf
    where = f"{address.host}:{address.port}"
    while True:
        left = until - time.monotonic()
        try:
            return call(address, max(0.1, min(PROBE, left)))
        except UnicodeError as error:
            raise BadInput(f"{where} is no address of a coordinator.") from error
        except OSError as error:
            problem = error
        reason = _reason(problem)
        left, now = until - time.monotonic(), time.monotonic()
        if left <= 0:
            raise Failed(
                f"the coordinator {where} cannot be reached ({reason}) within "
                f"{seconds:g} s; see that process 0 was started there and that its "
                f"port is open to this machine, or wait longer with {FLAG}."
            ) from problem
        if now - said > SAY:
            said = now
            say(f"waiting for the coordinator {where} ({reason}), {left:.0f} s more")
        time.sleep(min(pause, left))
        pause = min(pause * 2, PAUSES[1])


def _reason(problem: BaseException) -> str:
    if isinstance(problem, socket.gaierror):
        return f"its name is not known: {problem.strerror}"
    if isinstance(problem, TimeoutError):
        return "no answer"
    return getattr(problem, "strerror", None) or str(problem)


def say(text: str) -> None:
    """A line to whoever watches."""
    print(text, file=sys.stderr, flush=True)


def within(seconds: float, call: Callable, waiting: Callable | None = None) -> Any:
    """call() in a thread of its own, which is left behind when it takes too long.

    Args:
        seconds: that it may take.
        call: may hold no lock of this thread.
        waiting: called once when it takes longer than PROBE.

    Raises:
        TimeoutError: it did. What call raises is raised.
    """
    answer: Future = Future()

    def settle() -> None:
        try:
            result = call()
        except BaseException as error:  # raised where the answer is waited for
            answer.set_exception(error)
        else:
            answer.set_result(result)

    thread = threading.Thread(target=settle, daemon=True, name="connect")
    began = time.monotonic()
    thread.start()
    while not answer.done():
        passed = time.monotonic() - began
        if passed >= seconds:
            raise TimeoutError(f"no answer within {seconds:.3g} s")
        if waiting is not None and passed > PROBE:
            waiting()
            waiting = None
        thread.join(min(SLICE, seconds - passed))
    return answer.result()
