"""The first contact with a service: whether anybody answers at its address, and if not, why.

Later calls are repeated patiently (`nudgescribe.retry`): a service that has answered before will
answer again. Before the first answer, a wrong address is the likelier reason, and people wait.
"""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from time import sleep
from typing import TypeVar

import httpx

from nudgescribe.transport import proxy_for, tls

T = TypeVar("T")

SECONDS = 9.0
"""A first contact takes no longer, whatever is the matter."""
_STEP_SECONDS = 4.0
_PROBE_SECONDS = 1.5
_GREETING_SECONDS = 8.0
"""Some databases look up the name of who connects before they greet."""
_TRIES, _PAUSE = 3, 1.0
"""What may pass by itself is tried again: no flow run ends because a service is just restarted."""
_BAD_REQUEST = 400


@dataclass(frozen=True)
class _Obstacle:
    """Why nobody answers; `passing` if another try at once may do."""

    said: str
    passing: bool = False


def find_obstacle(
    url: str, *, trusted: bool = True, seconds: float = SECONDS, pause: float = _PAUSE
) -> str:
    """Return why no service answers at `url`, which names its host; "" if one does.

    Any answer counts, and nothing secret is sent. Without `trusted` any certificate will do: the
    caller's library judges it. What is no URL of http or https is left to that library, too.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return ""
    if parsed.scheme not in ("http", "https") or not parsed.host:
        return ""
    return _find(_host(parsed), lambda: _look(parsed, trusted), seconds, pause)


def find_closed(
    host: str,
    port: int,
    opening: bytes | None = None,
    *,
    seconds: float = SECONDS,
    pause: float = _PAUSE,
) -> str:
    """Return why nobody takes connections at a port, in words that name it; "" if somebody does.

    With an `opening`, which is what a client says first, somebody must answer it, too.
    """
    return _find(f"{host}:{port}", lambda: _connect(host, port, opening), seconds, pause)


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return what `work` returns. Raises TimeoutError after `seconds`: a thread then goes on with
    it, for neither the look-up of a name nor what libraries repeat can be interrupted.
    """
    outcome: SimpleQueue[tuple[T] | BaseException] = SimpleQueue()
    context = copy_context()

    def run() -> None:
        try:
            outcome.put((context.run(work),))
        except BaseException as error:
            outcome.put(error)

    Thread(target=run, daemon=True).start()
    try:
        found = outcome.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if isinstance(found, BaseException):
        raise found
    return found[0]


def describe(error: httpx.RequestError, url: httpx.URL) -> str:
    """Return why a call got no answer, in words that name the host if they can."""
    kind, said = type(error).__name__, _reason(error)
    return f"{kind}, {_host(url)} {said}" if said else kind


def _find(address: str, look: Callable[[], _Obstacle | None], seconds: float, pause: float) -> str:
    def find() -> str:
        obstacle = look()
        for _ in range(_TRIES - 1):
            if obstacle is None or not obstacle.passing:
                break
            sleep(pause)
            obstacle = look()
        return f"{address} {obstacle.said}" if obstacle else ""

    try:
        return within(seconds, find)
    except TimeoutError:
        return f"{address} has not answered within {seconds:g} seconds"


def _connect(host: str, port: int, opening: bytes | None) -> _Obstacle | None:
    try:
        connection = socket.create_connection((host, port), _STEP_SECONDS)
    except TimeoutError:
        return _Obstacle(_NO_CONNECTION)
    except OSError as error:
        return _Obstacle(_describe(error), isinstance(error, ConnectionRefusedError))
    with connection, suppress(ConnectionError):
        try:
            if opening is not None:
                connection.settimeout(_GREETING_SECONDS)
                connection.sendall(opening)
                connection.recv(1)
        except TimeoutError:
            return _Obstacle("takes connections, but has not answered in time")
    return None


def _look(url: httpx.URL, trusted: bool) -> _Obstacle | None:
    proxy = proxy_for(str(url))
    verify = tls() if trusted else _any_certificate()
    transport = httpx.HTTPTransport(verify=verify, proxy=proxy)
    timeout = httpx.Timeout(_STEP_SECONDS, connect=_STEP_SECONDS)
    try:
        with httpx.Client(transport=transport, timeout=timeout) as client:
            answer = client.head(url)
    except httpx.TransportError as error:
        if not proxy and (protocol := _other_protocol(url)):
            return _Obstacle(protocol)
        if not trusted and any(isinstance(cause, ssl.SSLError) for cause in _causes(error)):
            return None  # it wants a certificate of ours, for instance
        said = _reason(error) or f"has not answered: {type(error).__name__}"
        return _Obstacle(said + _by_way_of(proxy), _may_pass(error))
    to = answer.headers.get("location", "")
    if url.scheme == "http" and (
        (answer.is_redirect and to.startswith(f"https://{url.host}"))
        or (answer.status_code == _BAD_REQUEST and not proxy and _other_protocol(url))
    ):
        return _Obstacle(_SPEAKS_HTTPS)
    return None


_NO_CONNECTION = "cannot be reached: no connection came about in time"
_SPEAKS_HTTP = "speaks http, not https: let the URL begin with http://"
_SPEAKS_HTTPS = "speaks https, not http: let the URL begin with https://"


def _other_protocol(url: httpx.URL) -> str:
    """Return that a service speaks the other one of http and https, "" if it does not."""
    where = url.host, url.port or (443 if url.scheme == "https" else 80)
    with suppress(OSError), socket.create_connection(where, _PROBE_SECONDS) as connection:
        if url.scheme == "http":
            with _any_certificate().wrap_socket(connection, server_hostname=url.host):
                return _SPEAKS_HTTPS
        connection.sendall(f"HEAD / HTTP/1.0\r\nHost: {url.host}\r\n\r\n".encode("ascii"))
        if connection.recv(5) == b"HTTP/":
            return _SPEAKS_HTTP
    return ""


def _any_certificate() -> ssl.SSLContext:
    """Return a context for connections that carry no secrets: it takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _reason(error: httpx.RequestError) -> str:
    """Return what has happened, to follow the name of the host; "" if the error does not say."""
    for cause in _causes(error):
        if said := _describe(cause):
            return said
    match error:
        case httpx.ConnectTimeout():
            return _NO_CONNECTION
        case httpx.ReadTimeout():
            return "has not answered in time"
        case httpx.RemoteProtocolError():
            return "has ended the connection without an answer, or given one that is no HTTP"
        case _:
            return ""


def _describe(error: BaseException) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"has a certificate that is not trusted here: {error.verify_message}"
        case ssl.SSLError():
            return "does not speak https as it should"
        case socket.gaierror(errno=socket.EAI_AGAIN):
            return "cannot be looked up: no name server answers"
        case socket.gaierror():
            return "is unknown: there is no host of this name"
        case ConnectionRefusedError():
            return "refuses connections: nothing listens on this port"
        case OSError(errno=int(), strerror=str(text)):
            return f"cannot be reached: {text}"
        case _:
            return ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__ or error.__context__
    while cause:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _may_pass(error: httpx.TransportError) -> bool:
    permanent = ssl.SSLError, socket.gaierror
    slow = isinstance(error, httpx.TimeoutException)
    return not slow and not any(isinstance(cause, permanent) for cause in _causes(error))


def _host(url: httpx.URL) -> str:
    return url.netloc.decode("ascii")


def _by_way_of(proxy: str | None) -> str:
    return f", by way of the proxy {_host(httpx.URL(proxy))}" if proxy else ""
