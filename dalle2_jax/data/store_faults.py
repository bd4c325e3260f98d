"""What failed when a remote store was asked, for every kind of store that fsspec knows.

Errors are told apart by their status, class names and causes, so that none of the
packages that raise them has to be there.
"""

import errno
import importlib.util
import re
import time
from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import NamedTuple

LONGEST = 200  # letters of what somebody else's error says
PASSING = (408, 425, 429)  # and from 500 on: may be answered differently next time
NAMED = {
    401: "log in, or give the credentials of one who may",
    403: "see that the address is right and that you may do this with your credentials",
    404: "check the address",
    407: "log in to the proxy",
    410: "check the address",
    416: "the file is shorter than it was; run the command again",
}
PACKAGES = {  # what reads a protocol
    "http": "aiohttp",
    "https": "aiohttp",
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "hf": "huggingface_hub",
    "sftp": "paramiko",
    "ssh": "paramiko",
}
FINAL = re.compile("UnsupportedProtocol|TooManyRedirects|InvalidURL|MissingSchema")
CERTIFICATE = re.compile("Cert|Fingerprint")
LATE = re.compile("Timeout")
CUT = re.compile(
    "Disconnected|Payload|Incomplete|ConnectError|ConnectionError|ConnectionClosed|"
    "ReadError|WriteError|ProtocolError|NetworkError|ChunkedEncoding|Checksum|"
    "TransportError|ServerError|EOFError|EndpointConnection|WrongAnswer"
)
UNKNOWN_HOST = re.compile(
    r"Errno -[235]\b|Name or service not known|name resolution|nodename nor servname|"
    r"getaddrinfo failed|does not resolve|No address associated"
)
LOCAL = {  # OSErrors that no second try mends
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENOSPC,
    errno.EROFS,
    errno.EINVAL,
    errno.ENAMETOOLONG,
    errno.EDQUOT,
}
SECRETS = re.compile(
    r"(?P<scheme>\w[\w+.-]*://)(?:[^/\s'\"<>]*@)?(?P<path>[^\s?'\"<>]*)"
    r"(?P<query>\?[^\s'\"<>]*)?"
)


class WrongAnswer(Exception):
    """An answer that is not what was asked for; got: its length, None: not said."""

    def __init__(self, text: str, got: int | None = None):
        super().__init__(text)
        self.got = got


class Fault(NamedTuple):
    """reason: what was answered. remedy: what to do. again: whether it may pass.

    pause: seconds that the store asks to wait before another try.
    """

    reason: str
    remedy: str
    again: bool = False
    pause: float = 0.0


def shown(url: object) -> str:
    """An address without user, password and query, which may hold secrets."""
    text = str(url)
    if "://" not in text:
        return text
    return "::".join(_bare(part) for part in text.split("::"))


def _bare(part: str) -> str:
    scheme, mark, rest = part.partition("://")
    host, slash, path = rest.partition("/")
    if scheme in ("http", "https"):  # elsewhere a question mark is a letter
        host, _, query = host.partition("?")
        path, _, more = path.partition("?")
        path += "?..." if query or more else ""
    return scheme + mark + host.rpartition("@")[2] + slash + path if mark else part


def scrubbed(text: str, url: str) -> str:
    """One short line of what an error says, without the secrets of addresses."""
    line = " ".join(text.replace(url, shown(url)).split())

    def bare(found: re.Match) -> str:
        query = "?..." if found["query"] else ""
        return found["scheme"] + found["path"] + query

    return SECRETS.sub(bare, line)[:LONGEST]


def fault_of(error: BaseException, url: str, seconds: float) -> Fault:
    """What an error of any store means.

    Args:
        error: as it was raised.
        url: that was asked.
        seconds: that were waited for an answer.
    """
    chain = list(_chain(error))
    for one in chain:
        status = status_of(one)
        if status:
            return _of_status(status, one, chain)
        if CUT.search(_kinds(one)):
            break  # what lies below is how it was noticed; aiohttp calls that a 400
    for one in reversed(chain):  # the innermost knows best
        fault = _of_kind(one, seconds)
        if fault is not None:
            return fault._replace(reason=scrubbed(fault.reason, url))
    return _of_the_rest(error, url)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = getattr(error, "os_error", None)  # aiohttp keeps it there
        hidden = None if error.__suppress_context__ else error.__context__
        error = error.__cause__ or (inner if isinstance(inner, OSError) else hidden)


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error carries in one of the usual places."""
    answer = getattr(error, "response", None)
    places = [
        getattr(owner, name, None)
        for owner in (error, answer)
        for name in ("status", "status_code", "code")
    ]
    if isinstance(answer, dict):  # botocore
        places.append(answer.get("ResponseMetadata", {}).get("HTTPStatusCode"))
    for found in places:
        if isinstance(found, int | str) and re.fullmatch("[45][0-9][0-9]", str(found)):
            return int(found)
    return None


def _of_status(status: int, error: BaseException, chain: list) -> Fault:
    try:
        phrase = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = str(status)
    answer = getattr(error, "response", None)
    code = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
    if code and not str(code).isdigit():
        phrase = f"{phrase}, {code}"
    again = status >= 500 or status in PASSING or code == "RequestTimeout"
    remedy = NAMED.get(status, "check the address")
    return Fault(phrase, remedy, again, max(map(_asked_pause, chain)))


def _asked_pause(error: BaseException) -> float:
    """Seconds that Retry-After asks for; 0 where nothing is asked."""
    answer = getattr(error, "response", None)
    headers = getattr(error, "headers", None) or getattr(answer, "headers", None)
    if isinstance(answer, dict):
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders")
    if not hasattr(headers, "items"):
        return 0.0
    found = {str(name).lower(): str(value) for name, value in headers.items()}
    text = found.get("retry-after", "0").strip()
    if text.isdigit():
        return float(text)
    try:
        when: datetime = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return 0.0
    return max(0.0, when.timestamp() - time.time())


def _kinds(error: BaseException) -> str:
    """The names of its class and of those that it derives from."""
    return " ".join(kind.__name__ for kind in type(error).__mro__)


def _of_kind(error: BaseException, seconds: float) -> Fault | None:
    """By class; None where the class says nothing."""
    names, said = _kinds(error), _said(error)
    unknown = isinstance(error, OSError) or CUT.search(names)
    if unknown and ("DNSError" in names or UNKNOWN_HOST.search(str(error))):
        again = re.search("Errno -3|[Tt]emporary", str(error)) is not None
        host = f"its host is unknown, or this machine is offline: {error}"
        return Fault(host, "check the address and the network", again)
    if CERTIFICATE.search(names):
        return Fault(said, "mend the certificates of this machine or of the server")
    if FINAL.search(names):
        return Fault(said, "check the address")
    if "Offline" in type(error).__name__:
        return Fault(said, "go online, or copy the files here")
    if LATE.search(names):
        late = f"no answer within {seconds:g} s"
        return Fault(late, "set DALLE2_READ_SECONDS to wait longer", True)
    if CUT.search(names):
        return Fault(said, "", True)
    return None


def _of_the_rest(error: BaseException, url: str) -> Fault:
    """Errors without status or telling class: missing packages, files, the unknown."""
    said = scrubbed(_said(error), url)
    if isinstance(error, ImportError):
        return _missing(error, url, said)
    if isinstance(error, FileNotFoundError):
        return Fault("it is not there", NAMED[404])
    if isinstance(error, PermissionError):
        return Fault(said, NAMED[403])
    passing = isinstance(error, OSError) and error.errno not in LOCAL
    return Fault(said, "check the address", passing)


def _missing(error: ImportError, url: str, said: str) -> Fault:
    """Which package reads this protocol."""
    found = re.findall(r"([\w+.-]+)://", url)
    wanted = [PACKAGES[p] for p in found if p in PACKAGES]
    absent = [name for name in wanted if importlib.util.find_spec(name) is None]
    name = next(iter(absent or wanted), error.name)
    return Fault(said, f"pip install {name}" if name else "install what it needs")


def _said(error: BaseException) -> str:
    """Class and text of an error."""
    text = str(error)
    kind = type(error).__name__
    if isinstance(error, WrongAnswer | ImportError | ValueError) and text:
        return text
    return f"{kind}: {text}" if text else kind
