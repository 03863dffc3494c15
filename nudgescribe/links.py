"""Signed links: where they lead to is not the service, so it sees none of the account's headers."""

import logging
from collections.abc import Iterable
from functools import cache
from ssl import SSLContext
from typing import Any, BinaryIO
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
import urllib3

from nudgescribe import errors
from nudgescribe.deadline import POOLS, within

READ_BYTES = 256 * 1024
CONNECTIONS = 64
ONLY_REDIRECTS = urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=3)


@cache
def tls() -> SSLContext:
    """One for all connections: to read all authorities takes longer than many a call."""
    return httpx.create_ssl_context()


def proxy_for(url: str) -> str | None:
    """The system's proxy for what is called there, if it has one."""
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return None if proxy and proxy_bypass(parts.netloc) else proxy


def is_framed(headers: Iterable[str]) -> bool:
    """Whether an answer with these headers tells a body that was cut off from a whole one."""
    return bool({"content-length", "transfer-encoding"} & {*map(str.lower, headers)})


class Links:
    """Downloads what signed links lead to. By urllib3: a body costs a quarter of httpx's time.

    A download may take `seconds`, however steadily it comes in.
    """

    def __init__(self, timeout: httpx.Timeout, seconds: float) -> None:
        self._timeout = urllib3.Timeout(connect=timeout.connect, read=timeout.read)
        self._seconds = seconds
        self._pools: dict[str | None, urllib3.PoolManager] = {}

    def download(self, url: str, target: BinaryIO, where: str) -> int:
        """Writes the body to `target` and returns its size in bytes; `where` names it in errors.

        Raises LinkFailed, which does not repeat the link, if the answer is not a good one, breaks
        off, is shorter than announced, announces nothing or takes too long.
        """
        with within(self._seconds) as over:
            try:
                return self._download(url, target, where)
            except (urllib3.exceptions.HTTPError, ValueError) as error:
                broke = f"broke: {type(error).__name__}."
                late = f"did not lead to a whole page within {self._seconds:g} seconds."
                raise errors.LinkFailed(f"{where} {late if over() else broke}") from None

    def _download(self, url: str, target: BinaryIO, where: str) -> int:
        with self._pool_for(url).request(
            "GET",
            url,
            headers={"accept-encoding": "identity"},
            preload_content=False,
            timeout=self._timeout,
            retries=ONLY_REDIRECTS,
        ) as response:
            if response.status != 200:
                error = errors.LinkFailed(f"{where} answered {response.status}.")
                error.retry_after = errors.wait_asked_by(response.headers)
                raise error
            if not is_framed(response.headers):
                raise errors.LinkFailed(f"{where} does not say how long its page is.")
            return sum(target.write(block) for block in response.stream(READ_BYTES))

    def close(self) -> None:
        for pool in self._pools.values():
            pool.clear()

    def _pool_for(self, url: str) -> urllib3.PoolManager:
        """The system's proxy settings are honoured, as for the service's own calls."""
        proxy = proxy_for(url)
        if proxy not in self._pools:
            options: dict[str, Any] = {"maxsize": CONNECTIONS, "ssl_context": tls()}
            pool = (
                urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
            )
            pool.pool_classes_by_scheme = POOLS
            self._pools[proxy] = pool
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
