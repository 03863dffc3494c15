"""Downloads by signed links. They lead to an object store, which sees no header of the account."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import Any, BinaryIO

import httpx

from nudgescribe import errors, telemetry
from nudgescribe.bases import Closing
from nudgescribe.lazy import urllib3
from nudgescribe.transport import proxy_for, tls

READ_BYTES = 256 * 1024
CONNECTIONS = 64


def is_framed(headers: Iterable[str]) -> bool:
    """Return whether headers announce the body's end, so that one that was cut off is noticed."""
    return bool({"content-length", "transfer-encoding"} & {*map(str.lower, headers)})


def _only_redirects() -> urllib3.Retry:
    return urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=3)


class Links(Closing):
    """Downloads what signed links lead to.

    By urllib3, which takes a quarter of httpx's CPU time for a body. Threads may share it. A body
    has `seconds` to arrive, however steadily it comes.
    """

    def __init__(
        self, timeout: httpx.Timeout, seconds: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self._timeout = urllib3.Timeout(connect=timeout.connect, read=timeout.read)
        self._seconds = seconds
        self._clock = clock
        self._pools: dict[str | None, urllib3.PoolManager] = {}

    def download(self, url: str, target: BinaryIO, where: str) -> int:
        """Write the body to `target` and return its size in bytes; `where` names it in errors.

        Raises LinkFailed, which never holds the link: for another status than 200, a body without
        an announced end, one that breaks off, is short or takes too long.
        """
        try:
            return self._download(url, target, where)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise errors.LinkFailed(f"{where} broke: {type(error).__name__}.") from None

    def written_at(self, url: str, where: str) -> datetime | None:
        """Return when the body was written; None if its store does not say, or not in which time
        zone. Raises LinkFailed.
        """
        try:
            with self._open(url, where) as response:
                at = parsedate_to_datetime(response.headers["last-modified"])
        except (KeyError, ValueError):
            return None
        except urllib3.exceptions.HTTPError as error:
            raise errors.LinkFailed(f"{where} broke: {type(error).__name__}.") from None
        return at if at.tzinfo else None

    def _download(self, url: str, target: BinaryIO, where: str) -> int:
        with self._open(url, where) as response:
            if not is_framed(response.headers):
                raise errors.LinkFailed(f"{where} does not say how long its page is.")
            return self._save(response, target, where)

    @contextmanager
    def _open(self, url: str, where: str) -> Generator[urllib3.BaseHTTPResponse]:
        with (
            telemetry.observe("GET", telemetry.LINK) as answered,
            self._pool_for(url).request(
                "GET",
                url,
                headers={"accept-encoding": "identity"},
                preload_content=False,
                timeout=self._timeout,
                retries=_only_redirects(),
            ) as response,
        ):
            answered(response.status)
            if response.status != 200:
                problem = f"{where} answered {response.status}."
                raise errors.LinkFailed(problem, errors.retry_after(response.headers))
            yield response

    def _save(self, response: urllib3.BaseHTTPResponse, target: BinaryIO, where: str) -> int:
        # `read1` returns what is there; `read` would wait for a full block while bytes dribble in.
        end, size = self._clock() + self._seconds, 0
        while block := response.read1(READ_BYTES):
            size += target.write(block)
            if self._clock() > end:
                within = f"within {self._seconds:g} seconds"
                raise errors.LinkFailed(f"{where} did not lead to a whole page {within}.")
        return size

    def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            pool.clear()

    def _pool_for(self, url: str) -> urllib3.PoolManager:
        proxy = proxy_for(url)
        if proxy not in self._pools:
            options: dict[str, Any] = {"maxsize": CONNECTIONS, "ssl_context": tls()}
            self._pools[proxy] = (
                urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
            )
        return self._pools[proxy]


def _without_query(record: logging.LogRecord) -> bool:
    # HTTP libraries log whole URLs; a signed link's query is its key.
    if isinstance(record.args, tuple):
        record.args = tuple(map(_shown, record.args))
    return True


def _shown(argument: object) -> object:
    if isinstance(argument, httpx.URL):
        return argument.copy_with(query=None)
    if isinstance(argument, str) and "?" in argument:
        return argument.partition("?")[0]
    return argument


for _name in ("httpx", "urllib3.connectionpool", "urllib3.poolmanager", "urllib3.util.retry"):
    logging.getLogger(_name).addFilter(_without_query)
