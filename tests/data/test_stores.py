"""Remote stores: what is tried again, what is said at once, and what never is data."""

import errno
import http.server
import os
import re
import socket
import ssl
import sys
import threading
from types import SimpleNamespace

import fsspec
import pytest

from dalle2_jax.data import store_requests, stores
from dalle2_jax.data.records import ShardSource, expand
from dalle2_jax.data.shard_index import index_of, publish
from dalle2_jax.data.store_faults import fault_of, shown
from dalle2_jax.data.write_shapes import make_shapes
from dalle2_jax.errors import BadInput, Failed

SECRET = "hunter2"
PAGE = b"<html>please log in</html>"


class Server(http.server.ThreadingHTTPServer):
    """A folder over HTTP, whose answers to the next requests can be told.

    plan: names of the methods of Handler that answer the next GETs of a range; always:
    the one that answers all others. served: (method, path, range) of each request.
    """

    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.plan, self.always = folder, [], "right"
        self.served, self.closing = [], threading.Event()
        self.headers, self.whole = {}, "right"

    def url(self, name):
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"

    def handle_error(self, request, address):
        """Connections are cut on purpose here."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        """Silent."""

    def do_HEAD(self):
        self.serve()

    def do_PUT(self):
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.serve()

    def do_GET(self):
        self.serve()

    def serve(self):
        server, asked = self.server, self.headers.get("Range")
        server.served.append((self.command, self.path, asked))
        name = self.path.partition("?")[0].lstrip("/")
        path = server.folder / name
        self.data = path.read_bytes() if path.is_file() else None
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", asked or "")
        self.span = tuple(map(int, found.groups())) if found else None
        way = server.always if self.span else server.whole
        if self.span and server.plan:
            way = server.plan.pop(0)
        if way.isdigit():
            return self.say(int(way), b"no")
        return getattr(self, way)()

    def say(self, status, body=b"", headers=(), length=None):
        self.send_response(status)
        for name, value in {**dict(headers), **self.server.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def right(self):
        if self.command == "PUT":
            (self.server.folder / self.path.lstrip("/")).write_bytes(self.body)
            return self.say(201)
        if self.data is None:
            return self.say(404, b"none")
        if not self.span:
            return self.say(200, self.data, {"ETag": '"1"'})
        return self.part(*self.span)

    def part(self, first, last, body=None):
        body = self.data[first : last + 1] if body is None else body
        place = f"bytes {first}-{last}/{len(self.data)}"
        return self.say(206, body, {"Content-Range": place})

    def cut(self):
        body = self.data[self.span[0] : self.span[1] + 1]
        self.say(206, body[: len(body) // 2], length=len(body))
        self.drop()

    def drop(self):
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def page(self):
        self.say(200, PAGE, {"Content-Type": "text/html"})

    def page_as_long(self):
        length = self.span[1] - self.span[0] + 1
        self.say(200, (PAGE * length)[:length])

    def short(self):
        self.part(*self.span, body=self.data[self.span[0] : self.span[1]])

    def long(self):
        self.part(*self.span, body=self.data[self.span[0] : self.span[1] + 2])

    def another_part(self):
        self.part(self.span[0] + 1, self.span[1] + 1)

    def silent(self):
        self.server.closing.wait(30)
        self.close_connection = True

    def whole_file(self):
        self.say(200, self.data)

    def without_length(self):
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(self.data)
        self.close_connection = True

    def elsewhere(self):
        self.say(302, headers={"Location": self.path})

    def listing(self):
        if not self.path.endswith("/"):
            return self.right()
        names = sorted(p.name for p in self.server.folder.iterdir())
        links = "".join(f'<a href="{name}">{name}</a>' for name in names)
        return self.say(200, links.encode(), {"Content-Type": "text/html"})


@pytest.fixture
def pauses(monkeypatch):
    """Seconds that were waited between tries, without waiting."""
    found = []
    monkeypatch.setattr(stores, "pause", lambda seconds: found.append(seconds))
    return found


@pytest.fixture
def server(tmp_path, monkeypatch, pauses):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "served"
    make_shapes("simple", 8, 0, folder, 16, shard_size=4)
    (folder / "letters").write_bytes(bytes(range(256)))
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


PASSING = ["500", "502", "503", "504", "429", "408", "cut", "drop", "page"]
PASSING += ["page_as_long", "short", "long", "another_part"]


@pytest.mark.parametrize("way", PASSING)
def test_what_may_pass_is_tried_again_after_growing_pauses(server, pauses, way):
    server.plan = [way, way]
    assert stores.read(server.url("letters"), 30, 9) == bytes(range(30, 39))
    assert pauses == [1, 2] or way == "drop"  # of which the client tries some itself
    assert not server.plan


@pytest.mark.parametrize("way", [w for w in PASSING if w != "drop"])
def test_after_the_last_try_it_fails_in_one_sentence(server, pauses, way):
    server.always = way
    with pytest.raises(Failed, match="letters") as failed:
        stores.read(server.url("letters"), 30, 9)
    assert len([s for s in server.served if s[2]]) == stores.TRIES
    assert pauses == [1, 2, 4, 8]
    assert not way.isdigit() or way in str(failed.value)
    assert "\n" not in str(failed.value)


def test_a_server_that_accepts_and_never_answers_is_given_up(server, monkeypatch):
    monkeypatch.setenv(store_requests.VARIABLE, "0.3")
    server.plan = ["silent"]
    assert stores.read(server.url("letters"), 0, 2) == b"\0\1"
    monkeypatch.setattr(stores, "TRIES", 2)
    server.always = "silent"
    with pytest.raises(Failed, match=store_requests.VARIABLE):
        stores.read(server.url("letters"), 0, 2)


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_the_time_for_an_answer_is_a_number(monkeypatch, text):
    monkeypatch.setenv(store_requests.VARIABLE, text)
    with pytest.raises(BadInput, match=store_requests.VARIABLE):
        store_requests.patience()


@pytest.mark.parametrize("way", ["401", "403", "404", "410", "416", "418", "elsewhere"])
def test_what_no_try_mends_is_said_at_once(server, pauses, way):
    server.always = server.whole = way
    for call in (stores.info, stores.read_whole, index_of):
        with pytest.raises(BadInput, match="letters") as found:
            call(server.url("letters"))
        assert not way.isdigit() or way in str(found.value)
    with pytest.raises(BadInput, match="letters"):
        stores.read(server.url("letters"), 2, 3)
    assert not pauses


@pytest.mark.parametrize(
    "asked, waited",
    [
        ("7", 7),
        ("0", 1),
        ("1000000", stores.MOST_PAUSE),
        ("Fri, 31 Dec 2199 23:59:59 GMT", stores.MOST_PAUSE),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 1),
        ("whenever", 1),
    ],
)
@pytest.mark.parametrize("way", ["429", "503"])
def test_a_store_says_how_long_to_wait(server, pauses, way, asked, waited):
    server.plan, server.headers = [way], {"Retry-After": asked}
    assert stores.read(server.url("letters"), 1, 1) == b"\1"
    assert pauses == [waited]


def test_a_status_behind_what_fsspec_calls_not_found_is_seen(server, pauses):
    server.whole = "503"
    with pytest.raises(Failed, match="503"):
        stores.info(server.url("letters"))
    server.whole = "403"
    with pytest.raises(BadInput, match="403"):
        stores.info(server.url("letters"))


def test_secrets_of_an_address_are_never_said(server, pauses):
    host = server.url("").removeprefix("http://")
    url = f"http://me:{SECRET}@{host}letters?X-Amz-Signature={SECRET}"
    for way in ("403", "503", "page", "elsewhere"):
        server.always = server.whole = way
        for call in (stores.info, lambda u: stores.read(u, 1, 2), ShardSource):
            with pytest.raises((BadInput, Failed)) as found:
                call(url)
            assert SECRET not in str(found.value) and "letters" in str(found.value)
    closed = f"http://127.0.0.1:1/x.tar?sig={SECRET}"
    with pytest.raises(Failed, match="127.0.0.1:1/x.tar") as found:
        stores.info(closed)
    assert SECRET not in str(found.value)
    assert shown(f"simplecache::https://a:{SECRET}@h/x?t={SECRET}") == (
        "simplecache::https://h/x?..."
    )
    assert shown("s3://b/what?.tar") == "s3://b/what?.tar"
    assert shown("a/b?c@d.tar") == "a/b?c@d.tar"


def test_a_signed_address_is_read_and_its_samples_have_names_without_it(server):
    source = ShardSource(server.url(f"00000.tar?sig={SECRET}"))
    assert [source[i].caption for i in range(4)] == list(source.captions())
    assert all(path.endswith(f"?sig={SECRET}") for _, path, _ in server.served)
    assert SECRET not in source.name(0) and "00000.tar" in source.name(0)


def test_servers_without_ranges_or_length_are_named(server, pauses):
    server.whole = "without_length"
    with pytest.raises(BadInput, match="how long"):
        index_of(server.url("00000.tar"))
    server.whole, server.headers = "right", {"Accept-Ranges": "none"}
    with pytest.raises(BadInput, match="ranges"):
        index_of(server.url("00000.tar"))
    server.headers, server.always = {}, "whole_file"
    with pytest.raises(BadInput, match="ranges"):
        stores.read(server.url("letters"), 4, 4)
    assert stores.read(server.url("letters"), 0, 256) == bytes(range(256))
    assert not pauses


@pytest.mark.parametrize("way", PASSING)
def test_shards_of_a_failing_store_hold_what_the_local_ones_do(server, way):
    local = ShardSource(server.folder)
    remote = ShardSource([server.url("00000.tar"), server.url("00001.tar")])
    server.plan = [way, "right", "right"] * 12
    for ours, theirs in zip(local, remote, strict=True):
        assert ours[:4] == theirs[:4]


def test_a_page_is_no_caption_no_index_and_no_shard(server):
    server.whole = server.always = "page"
    with pytest.raises(Failed, match="HTML"):
        ShardSource(server.url("00000.tar"))
    server.whole = server.always = "right"
    (server.folder / "00000.tar.dalle2.idx").write_bytes(PAGE)
    source = ShardSource(server.url("00000.tar"))
    server.always = "page"
    for read in (source.caption, source.pair, source.__getitem__):
        with pytest.raises(Failed, match="HTML"):
            read(0)


def test_a_store_that_refuses_in_the_middle_makes_no_shorter_shard(server, monkeypatch):
    monkeypatch.setattr(stores, "BLOCK", 2**12)
    url = server.url("00000.tar")
    server.plan = ["right", "403"]
    with pytest.raises(BadInput, match="403"):
        index_of(url)
    source = ShardSource(url)
    assert len(source) == 4
    server.always = "403"  # as where a token ends: no fault of the samples
    for read in (source.caption, source.pair, source.__getitem__):
        with pytest.raises(Failed, match="403"):
            read(0)


def test_an_index_is_written_beside_the_shard_or_why_not_is_said(server):
    server.whole = "403"
    with pytest.raises(BadInput, match="403"):
        publish(server.url("00000.tar"))
    server.whole = "right"
    made = publish(server.url("00000.tar"))
    assert (server.folder / "00000.tar.dalle2.idx").is_file() and len(made.keys) == 4


def test_a_glob_lists_a_folder_or_says_why_not(server, pauses):
    server.whole = "listing"
    names = [server.url("00000.tar"), server.url("00001.tar")]
    assert expand(server.url("*.tar")) == names
    with pytest.raises(BadInput, match="nothing"):
        expand(server.url("nothing*.tar"))
    for way in ("403", "404"):
        server.whole = way
        with pytest.raises(BadInput, match="cannot be read"):
            expand(server.url("*.tar"))
    server.whole = "503"
    with pytest.raises(Failed, match="503"):
        expand(server.url("*.tar"))
    with pytest.raises(Failed, match="127.0.0.1:1/"):
        expand("http://127.0.0.1:1/*.tar")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    known = sys.modules["fsspec.registry"]._registry
    monkeypatch.delitem(known, "http", raising=False)
    for pattern in ("http://host/x.tar", "http://host/*.tar"):
        with pytest.raises(BadInput, match="pip install aiohttp"):
            ShardSource(pattern)
    assert "gcsfs" in fault_of(ImportError("no"), "gs://b/k", 1).remedy
    with pytest.raises(BadInput, match="nosuch"):
        ShardSource("nosuch://host/x.tar")


def error(kind, **fields):
    """An error of another package: a class of this name, with these fields."""
    made = type(kind, (Exception,), {})("what it says")
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def caused(outer, inner):
    outer.__cause__ = inner
    return outer


def boto(status, code):
    about = {"HTTPStatusCode": status, "HTTPHeaders": {"retry-after": "5"}}
    answer = {"Error": {"Code": code}, "ResponseMetadata": about}
    return error("ClientError", response=answer)


def httpx(status):
    answer = SimpleNamespace(status_code=status, headers={"Retry-After": "5"})
    return error("HTTPStatusError", response=answer)


UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
LAGGING = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@pytest.mark.parametrize(
    "problem, again, words",
    [
        (boto(503, "SlowDown"), True, "503.*SlowDown"),
        (boto(400, "RequestTimeout"), True, "RequestTimeout"),
        (boto(400, "ExpiredToken"), False, "ExpiredToken"),
        (caused(PermissionError("no"), boto(403, "AccessDenied")), False, "403"),
        (caused(OSError(errno.EIO, "x"), boto(500, "InternalError")), True, "500"),
        (httpx(429), True, "429"),
        (caused(FileNotFoundError("x"), httpx(401)), False, "401"),
        (error("HttpError", code="502"), True, "502"),
        (error("HttpResponseError", status_code=403), False, "403"),
        (fsspec.exceptions.FSTimeoutError(), True, "9 s"),
        (TimeoutError(), True, "9 s"),
        (error("ReadTimeout"), True, "9 s"),
        (error("RemoteProtocolError"), True, "RemoteProtocolError"),
        (error("IncompleteRead"), True, "IncompleteRead"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), True, "refused"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), True, "reset"),
        (BrokenPipeError(errno.EPIPE, "pipe"), True, "pipe"),
        (OSError(errno.EHOSTUNREACH, "no route"), True, "no route"),
        (caused(error("ConnectError"), UNKNOWN), False, "unknown"),
        (caused(error("ConnectError"), LAGGING), True, "offline"),
        (error("OfflineModeIsEnabled"), False, "Offline"),
        (ssl.SSLCertVerificationError("self-signed"), False, "self-signed"),
        (error("TooManyRedirects"), False, "TooManyRedirects"),
        (FileNotFoundError("x"), False, "not there"),
        (PermissionError(errno.EACCES, "denied"), False, "denied"),
        (OSError(errno.ENOSPC, "No space left"), False, "No space"),
        (ValueError("Cannot seek streaming HTTP file"), False, "seek"),
        (error("SomethingNew"), False, "SomethingNew"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_errors_of_all_stores_are_told_apart(problem, again, words):
    fault = fault_of(problem, "s3://bucket/key", 9)
    assert fault.again is again and re.search(words, fault.reason)
    told = any(hasattr(one, "response") for one in (problem, problem.__cause__))
    assert fault.pause == (5 if told else 0)


class Stuck(fsspec.AbstractFileSystem):
    """A store without an event loop that answers when it is let."""

    protocol, cachable = "stuck", False
    here, most, lock = 0, 0, threading.Lock()
    let = threading.Event()

    def cat_file(self, path, start=None, end=None, **kwargs):
        with Stuck.lock:
            Stuck.here += 1
            Stuck.most = max(Stuck.most, Stuck.here)
        Stuck.let.wait(30)
        with Stuck.lock:
            Stuck.here -= 1
        return b"x" * (end - start)


@pytest.fixture
def stuck():
    fsspec.register_implementation("stuck", Stuck, clobber=True)
    Stuck.let = threading.Event()
    Stuck.most = 0
    yield Stuck
    Stuck.let.set()
    store_requests.stay()


def readers(count):
    """Threads that read, and what came of it."""
    found = []

    def read():
        try:
            found.append(stores.read("stuck://a", 0, 3))
        except Failed as failed:
            found.append(failed)

    threads = [threading.Thread(target=read) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, found


def ended(threads):
    for thread in threads:
        thread.join(30)
    return not any(thread.is_alive() for thread in threads)


def test_reads_at_once_are_bounded(stuck):
    threads, found = readers(stores.AT_ONCE + 9)
    while stuck.here < stores.AT_ONCE:
        os.sched_yield()
    stuck.let.set()
    assert ended(threads) and found == [b"xxx"] * len(threads)
    assert stuck.most == stores.AT_ONCE


def test_a_store_without_a_loop_is_given_up_too(stuck, pauses, monkeypatch):
    monkeypatch.setenv(store_requests.VARIABLE, "0.1")
    monkeypatch.setattr(stores, "TRIES", 2)
    with pytest.raises(Failed, match=store_requests.VARIABLE):
        stores.read("stuck://a", 0, 3)


def test_reads_under_way_end_when_the_process_leaves(stuck):
    threads, found = readers(stores.AT_ONCE + 3)
    while stuck.here < stores.AT_ONCE:
        os.sched_yield()
    store_requests.leave()
    assert ended(threads) and all(isinstance(one, Failed) for one in found)


def test_a_wait_for_the_next_try_ends_when_the_process_leaves(monkeypatch):
    began = threading.Event()
    monkeypatch.setattr(stores, "PAUSE", stores.MOST_PAUSE)

    def failing():
        began.set()
        raise ConnectionResetError

    threads = [threading.Thread(target=lambda: failed.append(caught(failing)))]
    failed = []
    threads[0].start()
    began.wait(30)
    store_requests.leave()
    assert ended(threads) and isinstance(failed[0], Failed)
    store_requests.stay()


def caught(call):
    try:
        return stores._ask("http://host/x", call)
    except Failed as failed:
        return failed


def test_the_first_error_of_many_is_raised_and_the_rest_not_waited_for(stuck):
    def one(number):
        if number:
            return stores.read("stuck://a", 0, 3)
        raise BadInput("the first")

    with pytest.raises(BadInput, match="first"):
        stores.in_parallel(one, range(100))
    assert stuck.most < 100
