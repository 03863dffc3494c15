from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import ClientSession
from fsspec import AbstractFileSystem
from yarl import URL

class HTTPFileSystem(AbstractFileSystem):
    loop: Any
    kwargs: dict[str, Any]
    client_kwargs: dict[str, Any]
    get_client: Callable[..., Awaitable[ClientSession]]
    def encode_url(self, url: str) -> URL: ...
