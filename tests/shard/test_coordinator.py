"""The coordinator's address is looked at before jax, which would abort, uses it."""

import socket
import subprocess
import sys

import pytest

from dalle2_jax.errors import BadInput, Failed
from dalle2_jax.shard import coordinator
from dalle2_jax.shard.coordinator import (
    BIND,
    VARIABLE,
    Address,
    check_free,
    connect_seconds,
    look_at,
    parse_address,
    within,
)
from dalle2_jax.shard.processes import asked


@pytest.fixture
def clock(monkeypatch):
    """Time passes where somebody sleeps, and nowhere else."""

    class Clock:
        now, slept = 0.0, []

    def sleep(seconds):
        Clock.slept.append(seconds)
        Clock.now += seconds

    Clock.slept = []
    monkeypatch.setattr(coordinator.time, "sleep", sleep)
    monkeypatch.setattr(coordinator.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.fixture
def listener(monkeypatch):
    monkeypatch.delenv(BIND, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Address("127.0.0.1", server.getsockname()[1])


@pytest.mark.parametrize(
    "text, address",
    [
        ("host:1", ("host", 1)),
        ("a-b.c_d:65535", ("a-b.c_d", 65535)),
        ("10.0.0.1:29500", ("10.0.0.1", 29500)),
        ("[::1]:29500", ("::1", 29500)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
    ],
)
def test_an_address_is_a_host_and_a_port(text, address):
    assert parse_address(text, "--coordinator") == address


@pytest.mark.parametrize(
    "text",
    ["host", "host:", ":1", "", "host:x", "host:-1", "host:0", "host:65536"]
    + ["host:99999", "::1:29500", "[::1]", "a b:1", "http://host:1", "host:1²"]
    + ["[host:1", "me@host:1", "host/x:1", "host: 1"],
)
def test_no_address_is_refused_at_once(text):
    with pytest.raises(BadInput, match="--coordinator"):
        parse_address(text, "--coordinator")
    with pytest.raises(BadInput, match="--coordinator"):
        asked(text, 2, 0)


def test_seconds_come_from_the_flag_the_environment_or_are_300(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert connect_seconds(None) == 300
    monkeypatch.setenv(VARIABLE, "7.5")
    assert connect_seconds(None) == 7.5 and connect_seconds(3) == 3
    for text in ("soon", "-1", "0", "nan", "inf"):
        monkeypatch.setenv(VARIABLE, text)
        with pytest.raises(BadInput, match=VARIABLE):
            connect_seconds(None)
    with pytest.raises(BadInput, match="connect-seconds"):
        connect_seconds(0)


def test_a_port_in_use_is_said_by_process_0(listener, monkeypatch):
    with pytest.raises(Failed, match=f"port {listener.port} .*another port"):
        look_at(listener, 0, 5)
    monkeypatch.setenv(BIND, f"127.0.0.1:{listener.port}")
    with pytest.raises(Failed, match=f"port {listener.port} .*another port"):
        check_free(1)


def test_a_port_that_others_may_share_is_in_use_all_the_same(monkeypatch):
    monkeypatch.delenv(BIND, raising=False)
    with socket.socket(socket.AF_INET) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("0.0.0.0", 0))
        server.listen()
        with pytest.raises(Failed, match="another port"):
            check_free(server.getsockname()[1])


def test_a_free_port_may_be_had_with_and_without_ipv6(listener, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    look_at(Address("127.0.0.1", free), 0, 5)
    real = socket.socket

    def only_ipv4(family=socket.AF_INET, *args):
        if family == socket.AF_INET6:
            raise OSError(coordinator.errno.EAFNOSUPPORT, "no IPv6")
        return real(family, *args)

    monkeypatch.setattr(coordinator.socket, "socket", only_ipv4)
    check_free(free)


def test_the_others_wait_for_a_coordinator_that_listens(listener, capsys):
    look_at(listener, 1, 5)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("index", [0, 1])
def test_an_unknown_host_is_said_early_and_given_up_in_time(
    clock, monkeypatch, capsys, index
):
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    monkeypatch.setattr(coordinator, "within", raising(unknown))
    monkeypatch.setattr(coordinator, "check_free", lambda port: None)
    with pytest.raises(Failed, match="no-such-host.invalid:29918.*not known"):
        look_at(Address("no-such-host.invalid", 29918), index, 30)
    assert clock.now == pytest.approx(30)
    assert clock.slept[0] < clock.slept[2] <= coordinator.PAUSES[1]
    assert "no-such-host.invalid" in capsys.readouterr().err


def test_a_name_that_is_known_after_a_while_is_enough(clock, monkeypatch):
    tries = []

    def lagging(seconds, call):
        tries.append(seconds)
        if len(tries) < 4:
            raise socket.gaierror(socket.EAI_NONAME, "not yet")

    monkeypatch.setattr(coordinator, "within", lagging)
    monkeypatch.setattr(coordinator, "check_free", lambda port: None)
    look_at(Address("pod-0.job", 29918), 0, 300)
    assert len(tries) == 4 and clock.now < 10


def test_nobody_at_the_port_is_said(clock, monkeypatch):
    monkeypatch.setattr(coordinator, "within", lambda seconds, call: None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = Address("127.0.0.1", server.getsockname()[1])
    with pytest.raises(Failed, match=f"{closed.port} .*refused.*process 0"):
        look_at(closed, 1, 4)


def test_a_name_that_cannot_be_one_is_refused(listener, monkeypatch):
    monkeypatch.setattr(coordinator, "check_free", lambda port: None)
    with pytest.raises(BadInput, match="a..b"):
        look_at(Address("a..b", 29918), 0, 5)


def test_what_takes_too_long_is_left_behind():
    with pytest.raises(TimeoutError):
        within(0.05, coordinator.threading.Event().wait)
    assert within(30, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(30, lambda: 1 / 0)


JOINING = """
import sys
from dalle2_jax.cli.main import main
flags = ["--coordinator", sys.argv[1], "--num-processes", "2", "--process-id"]
sys.exit(main(["doctor", *flags, sys.argv[2], "--connect-seconds", "2"]))
"""


@pytest.mark.parametrize("index", ["0", "1"])
def test_peers_that_never_answer_end_in_a_sentence(listener, index):
    """jax alone would abort: 134. Process 0 waits for a peer, 1 for a coordinator."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    port = listener.port if index == "1" else free
    command = [sys.executable, "-c", JOINING, f"127.0.0.1:{port}", index]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.count("connect-seconds") == 1
    assert "Traceback" not in done.stderr and "stack trace" not in done.stderr


def raising(problem):
    def call(*args):
        raise problem

    return call
