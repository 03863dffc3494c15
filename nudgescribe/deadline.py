"""An end to every call: the time-out of each read never fires while an answer dribbles in.

Both HTTP libraries get sockets that know when the call they serve must be over.
"""

import http.client
import io
import socket
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from ssl import SSLContext
from time import monotonic
from typing import Any

import httpcore
import httpx
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

SENT_AT_ONCE = 64 * 1024
_END: ContextVar[float] = ContextVar("end", default=inf)


@contextmanager
def within(seconds: float) -> Generator[Callable[[], bool]]:
    """What this thread sends and reads in the block has so many seconds; yields whether they are
    over. Looking up a name and shaking hands have time-outs of their own.
    """
    end = monotonic() + seconds
    earlier = _END.set(end)
    try:
        yield lambda: monotonic() >= end
    finally:
        _END.reset(earlier)


def _bounded(timeout: float | None) -> float | None:
    """A wait's time-out, none of which lasts longer than the call may. Raises TimeoutError."""
    left = _END.get() - monotonic()
    if left <= 0:
        raise TimeoutError("The time of the call is over.")
    return timeout if left == inf else min(left, left if timeout is None else timeout)


# ---- httpx ------------------------------------------------------------------------------------


class Transport(httpx.HTTPTransport):
    """httpx's own, with connections that keep the time."""

    def __init__(self, tls: SSLContext, proxy: str | None) -> None:
        super().__init__(verify=tls)
        through = httpx.Proxy(proxy) if proxy else None
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls,
            proxy=httpcore.Proxy(str(through.url), auth=through.raw_auth) if through else None,
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=5,
            network_backend=_Network(),
        )


class _Network(httpcore.NetworkBackend):
    def __init__(self) -> None:
        self._real = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        with _in_time():
            timeout = _bounded(timeout)
        return _Stream(self._real.connect_tcp(host, port, timeout, local_address, socket_options))


class _Stream(httpcore.NetworkStream):
    def __init__(self, real: httpcore.NetworkStream) -> None:
        self._real = real

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _in_time():
            return self._real.read(max_bytes, _bounded(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _in_time():
            for start in range(0, len(buffer), SENT_AT_ONCE):
                self._real.write(buffer[start : start + SENT_AT_ONCE], _bounded(timeout))

    def close(self) -> None:
        self._real.close()

    def start_tls(
        self,
        ssl_context: SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        with _in_time():
            timeout = _bounded(timeout)
        return _Stream(self._real.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._real.get_extra_info(info)


@contextmanager
def _in_time() -> Generator[None]:
    try:
        yield
    except TimeoutError as error:
        raise httpcore.TimeoutException(str(error)) from None


# ---- urllib3 ----------------------------------------------------------------------------------


class _Raw(io.RawIOBase):
    """What an answer is read from, each time for no longer than the call may last."""

    def __init__(self, connection: socket.socket, real: io.RawIOBase) -> None:
        self._connection = connection
        self._timeout = connection.gettimeout()
        self._real = real

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        timeout = _bounded(self._timeout)
        if timeout != self._timeout:
            self._connection.settimeout(timeout)
        return self._real.readinto(buffer)

    def close(self) -> None:
        self._real.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_Raw(sock, self.fp.detach()))


class _Connection(HTTPConnection):
    response_class = _Answer


class _SecureConnection(HTTPSConnection):
    response_class = _Answer


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection  # pyright: ignore[reportAssignmentType] - as with urllib3's own


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection  # pyright: ignore[reportAssignmentType]


POOLS: dict[str, type[urllib3.HTTPConnectionPool] | type[urllib3.HTTPSConnectionPool]] = {
    "http": _Pool,
    "https": _SecurePool,
}
"""For a pool manager of urllib3, in place of its own."""
