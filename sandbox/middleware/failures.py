"""Answers for unexpected failures, which are in the log under an id."""

import logging
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.errors import error_response

log = logging.getLogger(__name__)


class FailureAnswers:
    """Middleware that answers 500 in the contract's form to a call that has failed unexpectedly.

    The framework's own handler of such failures sends its answer and then raises the error to the
    server, which closes the connection: the answer may be lost with it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            if has_begun:  # its connection must break off: half an answer is none
                raise
            error_id = uuid4()
            log.exception("Error %s in %s %s", error_id, scope["method"], scope["path"])
            answer = error_response(500, f"Internal error. The log has it as {error_id}.")
            await answer(scope, receive, send)
