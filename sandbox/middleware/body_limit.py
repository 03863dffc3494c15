"""The limit of what a call may send."""

import asyncio
from contextlib import suppress

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nudgescribe.contract import CUSTOMERS_CHECK, Text
from sandbox.settings import Settings

FORM, JSON = "multipart/form-data", "application/json"
DRAIN_SECONDS = 30.0
"""How long the rest of a body is read after its answer."""


class BodyLimit:
    """Middleware that lets a body above the limit be answered with 413 as soon as it is read.

    That is after the caller is known, and before anything is done with the body. A form may be as
    large as a file only where files are taken: elsewhere it would be held in memory. Compressed
    bodies get a 415: nobody can tell how large they get.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        body = _Body(receive, send, headers, self._limit(scope["path"], headers))
        await self._app(scope, body.receive_limited, body.send)

    def _limit(self, path: str, headers: Headers) -> int:
        is_file = path == CUSTOMERS_CHECK and media_type(headers) == FORM
        return self._settings.largest_file if is_file else self._settings.largest_body


class _Body:
    """The body of one call, counted as it is received, and the sending of its answer."""

    def __init__(self, receive: Receive, send: Send, headers: Headers, limit: int) -> None:
        self._receive = receive
        self._send = send
        self._is_compressed = headers.get("content-encoding", "identity") != "identity"
        self._announced = int(headers.get("content-length", 0))
        self._received = 0
        self._ended = False
        self._is_answered = False
        self._limit = limit

    async def receive(self) -> Message:
        """Receive the next part of the body and count it."""
        message = await self._receive()
        self._received += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        return message

    async def receive_limited(self) -> Message:
        """Receive the next part.

        Raises HTTPException, 413 if there is more than the limit, 415 if it is compressed.
        """
        if self._is_answered:  # what sends a file listens meanwhile whether the client is there
            return await self.receive()
        if self._is_compressed:
            raise HTTPException(415, "Send the body as it is, without Content-Encoding.")
        if self._announced > self._limit:
            raise HTTPException(413, Text.TOO_LARGE)
        message = await self.receive()
        if self._received > self._limit:
            raise HTTPException(413, Text.TOO_LARGE)
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer; before the last one ends it, read the rest of the body.

        A connection that is closed under a client that still sends takes the answer with it.
        """
        self._is_answered = True
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if is_last and not self._ended:
            await self._send({**message, "more_body": True})
            message = {**message, "body": b""}
            with suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    while not self._ended:
                        await self.receive()
        await self._send(message)


def media_type(headers: Headers) -> str:
    """Return the body's media type, in lower case and without parameters; empty if not given."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()
