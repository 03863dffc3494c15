"""How much a call may send."""

import asyncio
from contextlib import suppress

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nudgescribe.contract import CUSTOMERS_CHECK, Text
from sandbox.errors import answer
from sandbox.settings import Settings

FORM, JSON = "multipart/form-data", "application/json"
LINGER_SECONDS = 30.0
"""How long a body is read on that has had its answer."""


class BodyLimit:
    """Answers 413 to a body above the limit, before anything is done with it.

    A file is a form, and a form is a file only where files are taken: elsewhere it would be held in
    memory. Packed bodies are refused: nobody can tell how large they get.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        file = scope["path"] == CUSTOMERS_CHECK and media_type(headers) == FORM
        limit = self._settings.largest_file if file else self._settings.largest_body
        received, ended = 0, False

        async def counted() -> Message:
            nonlocal received, ended
            message = await receive()
            received += len(message.get("body", b""))
            ended = not message.get("more_body", False)
            return message

        async def limited() -> Message:
            message = await counted()
            if received > limit:
                raise HTTPException(413, Text.TOO_LARGE)
            return message

        async def heard(message: Message) -> None:
            # A connection that is closed under a client that still sends takes the answer with it.
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if last and not ended:
                await send({**message, "more_body": True})
                message = {**message, "body": b""}
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER_SECONDS):
                        while not ended:
                            await counted()
            await send(message)

        if headers.get("content-encoding", "identity") != "identity":
            refusal = answer(415, "Send the body as it is, without Content-Encoding.")
            await refusal(scope, counted, heard)
        elif int(headers.get("content-length", 0)) > limit:
            await answer(413, Text.TOO_LARGE)(scope, counted, heard)
        else:
            await self._app(scope, limited, heard)


def media_type(headers: Headers) -> str:
    """What a body is said to be."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()
