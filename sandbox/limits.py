"""How much a call may send."""

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nudgescribe.contract import Text
from sandbox.refusals import answer
from sandbox.settings import Settings


class BodyLimit:
    """Answers 413 to a body above the limit, before anything is done with it.

    Packed bodies are refused: nobody can tell how large they get.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if headers.get("content-encoding", "identity") != "identity":
            refusal = answer(415, "Send the body as it is, without Content-Encoding.")
            await refusal(scope, receive, send)
            return
        form = headers.get("content-type", "").startswith("multipart/form-data")
        limit = self._settings.largest_file if form else self._settings.largest_body
        if int(headers.get("content-length", 0)) > limit:
            await answer(413, Text.TOO_LARGE)(scope, receive, send)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, Text.TOO_LARGE)
            return message

        await self._app(scope, limited, send)
