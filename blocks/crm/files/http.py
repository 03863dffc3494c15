"""Files from web servers, whole or refused with what the server says."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import ClientResponse, ClientResponseError, ClientTimeout
from aiohttp.http import HttpProcessingError
from fsspec import AbstractFileSystem
from fsspec.asyn import sync
from fsspec.implementations.http import HTTPFileSystem
from multidict import CIMultiDictProxy

from blocks.crm.errors import SourceError, SourceUnavailable
from blocks.crm.files import compression
from blocks.saved import Logger
from blocks.storage.errors import is_transient_status
from nudgescribe.errors import retry_after
from nudgescribe.retry import RetryPolicy

RETRY = RetryPolicy()
TIMEOUT = ClientTimeout(total=6 * 60 * 60, sock_connect=30, sock_read=120)
PIECE_BYTES = 1024 * 1024
_CODED = {"gzip", "x-gzip", "zstd", "identity", "aws-chunked"}
"""Content codings that leave a file as it is, or that its first bytes tell."""
_CODE = re.compile(rb"<Code>([A-Za-z]{2,60})</Code>|\"(?:code|error)\"\s*:\s*\"([A-Za-z_]{2,60})\"")
_BODY_BYTES = 64 * 1024
_MEANINGS = {
    400: "the server does not understand the path or its parameters",
    401: "its credentials are missing, wrong or expired",
    403: "the link may have expired, or its credentials may not read the file",
    404: "there is no such file",
    407: "a proxy asks for credentials",
    410: "the file has been removed, or the link has expired",
    429: "the server is asked too often",
    503: "the server is busy",
}


@dataclass(frozen=True)
class _Answer:
    """An answer without its body, of which the begin is kept if it refuses."""

    status: int
    headers: CIMultiDictProxy[str]
    refusal: bytes


def fetch(fs: AbstractFileSystem, url: str, target: Path, name: str, logger: Logger) -> None:
    """Write the file to `target` as it was sent, still encoded.

    A busy server is asked again. Raises SourceUnavailable; SourceError for a refusal, for a coding
    that is not read, and if nothing tells whether all of the file has arrived.
    """
    assert isinstance(fs, HTTPFileSystem)

    def ask() -> _Answer:
        answer = sync(fs.loop, _get, fs, url, target)
        if answer.status != 200:
            raise _refusal(name, answer)
        length = answer.headers.get("content-length")
        if length is not None and target.stat().st_size != int(length):
            raise SourceUnavailable(f"{name} has {length} bytes, but fewer or more arrived.")
        return answer

    answer = RETRY.run(ask)
    _check_coding(name, answer.headers.get("content-encoding", ""))
    if not _shows_its_end(answer.headers):
        _check_end(name, target, logger)


def is_no_http(error: Exception) -> bool:
    """Return whether an error is about an answer that is no HTTP; to aiohttp it is a 400."""
    refused = isinstance(error, ClientResponseError)
    return refused and isinstance(error.__cause__, HttpProcessingError)


def reason_of(error: Exception) -> str:
    """Return what a server has answered, and what that means; empty for errors of others."""
    if is_no_http(error):
        return "its answer is no valid HTTP"
    status = getattr(error, "status", None)
    return _said(status) if isinstance(status, int) and status else ""


async def _get(fs: HTTPFileSystem, url: str, target: Path) -> _Answer:
    # Decoded by aiohttp, a body that is cut off would pass for a whole one.
    session = {"timeout": TIMEOUT, **fs.client_kwargs, "auto_decompress": False}
    async with (
        await fs.get_client(loop=fs.loop, **session) as client,
        client.get(fs.encode_url(url), **_options(fs)) as answer,
    ):
        if answer.status != 200:
            refusal = await answer.content.read(_BODY_BYTES)
            return _Answer(answer.status, answer.headers, refusal)
        await _write(answer, target)
        return _Answer(answer.status, answer.headers, b"")


def _options(fs: HTTPFileSystem) -> dict[str, Any]:
    # Without gzip some stores decode a file as they send it, and say no length.
    headers = {"Accept-Encoding": "gzip", **fs.kwargs.get("headers", {})}
    return {**fs.kwargs, "headers": headers}


async def _write(answer: ClientResponse, target: Path) -> None:
    with target.open("wb") as file:
        async for piece in answer.content.iter_chunked(PIECE_BYTES):
            file.write(piece)


def _refusal(name: str, answer: _Answer) -> SourceError:
    found = _CODE.search(answer.refusal)
    code = next(filter(None, found.groups())).decode() if found else ""
    said = _said(answer.status, code)
    wait = retry_after(answer.headers)
    if wait is not None or is_transient_status(answer.status):
        return SourceUnavailable(f"{name} could not be reached: {said}.", wait)
    return SourceError(f"{name} could not be read: {said}.")


def _said(status: int, code: str = "") -> str:
    meaning = _MEANINGS.get(status)
    return f"the server answered {status} {code}".rstrip() + (f", {meaning}" if meaning else "")


def _check_coding(name: str, codings: str) -> None:
    foreign = {each.strip().lower() for each in codings.split(",")} - _CODED - {""}
    if foreign:
        known = sorted(foreign & {"br", "deflate", "compress"})
        raise SourceError(
            f"{name} is sent with the coding {', '.join(known) or 'of another kind'}, which is not "
            "read: have the server send it as it is, or with gzip."
        )


def _shows_its_end(headers: CIMultiDictProxy[str]) -> bool:
    """Return whether an answer that is cut off shows it: without length and chunks it ends where
    its connection does.
    """
    *_, coding = ",".join(headers.getall("transfer-encoding", [""])).split(",")
    return "content-length" in headers or coding.strip().lower() == "chunked"


def _check_end(name: str, target: Path, logger: Logger) -> None:
    with target.open("rb") as file:
        head = file.read(compression.MAGIC_BYTES)
    if not compression.says_its_end(head):
        raise SourceError(
            f"{name} is sent without its length, so that nobody can tell whether it is whole or "
            "cut off: have the server send Content-Length, or compress the file with gzip."
        )
    logger.warning(
        "%s is sent without its length. It is whole by its format, but if it was packed in several "
        "parts, the last ones may be missing: have the server send Content-Length",
        name,
    )
