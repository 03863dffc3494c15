"""Connections to a service: one TLS context, the system's proxies, and bodies that must end."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from socket import AF_INET, AF_INET6, SOCK_DGRAM, socket
from ssl import SSLContext
from time import monotonic
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from nudgescribe.caching import cache_for_threads

_build_tls = cache_for_threads(httpx.create_ssl_context)
LOOPBACK = "127.0.0.1"
_OUTSIDE = ((AF_INET, "192.0.2.1"), (AF_INET6, "2001:db8::1"))
"""Addresses that are kept for documentation (RFC 5737, RFC 3849): no network of this machine has
them, so they are reached as others outside are.
"""


def tls() -> SSLContext:
    """Return the context of all connections: reading all authorities takes longer than a call."""
    return _build_tls()


def proxy_for(url: str) -> str | None:
    """Return the system's proxy for `url`, None where it has none."""
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return None if proxy and proxy_bypass(parts.netloc) else proxy


def own_address() -> str:
    """Return the address that this machine has towards others, the loopback one if it has none.

    Nothing is sent: a datagram socket is only told where to send to.
    """
    for family, outside in _OUTSIDE:
        with suppress(OSError), socket(family, SOCK_DGRAM) as probe:
            probe.connect((outside, 9))
            return probe.getsockname()[0].partition("%")[0]
    return LOOPBACK


def open_transport(base_url: str, seconds: float) -> httpx.BaseTransport:
    """Return a transport for the calls of one service, each of `seconds` at most."""
    real = httpx.HTTPTransport(verify=tls(), proxy=proxy_for(base_url))
    return DeadlineTransport(real, seconds)


class DeadlineExceeded(httpx.TimeoutException):
    """A body took too long. The text says how long it had: "within 300 seconds"."""


class DeadlineTransport(httpx.BaseTransport):
    """Sends through another transport, and ends bodies that dribble.

    A time-out of httpx is one for each read and write; it never fires while single bytes keep
    coming. Here the clock is looked at between the chunks of both bodies, that of the request and
    that of the answer: together they have `seconds`, or as many as the request's extension
    `deadline` says. Connecting and the headers have httpx's time-outs only.
    """

    def __init__(
        self,
        transport: httpx.BaseTransport,
        seconds: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._transport = transport
        self._seconds = seconds
        self._clock = clock

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. Its body, and reading the answer's, raise DeadlineExceeded."""
        seconds: float = request.extensions.get("deadline", self._seconds)
        end = self._clock() + seconds

        def check() -> None:
            if self._clock() > end:
                raise DeadlineExceeded(f"within {seconds:g} seconds")

        response = self._transport.handle_request(
            httpx.Request(
                request.method,
                request.url,
                headers=request.headers,
                stream=_CheckedStream(request.stream, check),
                extensions=request.extensions,
            )
        )
        response.stream = _CheckedStream(response.stream, check)
        return response

    def close(self) -> None:
        """Close the other transport."""
        self._transport.close()


class _CheckedStream(httpx.SyncByteStream):
    """A body; `check` is called after each chunk of it."""

    def __init__(
        self, stream: httpx.SyncByteStream | httpx.AsyncByteStream, check: Callable[[], None]
    ) -> None:
        assert isinstance(stream, httpx.SyncByteStream)
        self._stream = stream
        self._check = check

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._check()
            yield chunk

    def close(self) -> None:
        self._stream.close()
