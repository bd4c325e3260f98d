"""The page answers for loopback alone: no rebound names, no files from elsewhere."""

import asyncio

import pytest

from dalle2_jax.demo.page import LoopbackOnly


def answered(host, origin=None, kind="http"):
    """Whether the page behind is reached, and what is sent."""
    reached, sent = [], []

    async def app(scope, receive, send):
        reached.append(scope)

    async def send(message):
        sent.append(message)

    headers = [] if host is None else [(b"host", host.encode())]
    headers += [] if origin is None else [(b"origin", origin.encode())]
    scope = {"type": kind, "headers": headers}
    asyncio.run(LoopbackOnly(app)(scope, None, send))
    return bool(reached), sent


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "[::1]:80"])
def test_loopback_is_served(host):
    assert answered(host) == (True, [])
    assert answered(host, f"http://{host}")[0]
    assert answered(host, kind="websocket")[0]


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example:7860", None),
        ("evil.example", "http://evil.example"),
        ("127.0.0.1.evil.example:7860", None),
        ("localhost@evil.example", None),
        ("[::1", None),
        ("", None),
        (None, None),
        ("127.0.0.1:7860", "https://evil.example"),
        ("127.0.0.1:7860", "http://localhost:3000"),
        ("127.0.0.1:7860", "http://127.0.0.1:7860.evil.example"),
        ("127.0.0.1:7860", "null"),
    ],
)
def test_anything_else_is_refused(host, origin):
    reached, sent = answered(host, origin)
    assert not reached and sent[0]["status"] == 403
    reached, sent = answered(host, origin, "websocket")
    assert not reached and sent[0]["type"] == "websocket.close"


def test_the_server_itself_is_started():
    assert answered(None, kind="lifespan")[0]
