"""Answers in another envelope than the contract's, to rehearse a real account's."""

import json
from typing import Any, cast

from pydantic.alias_generators import to_camel
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.settings import Envelope

API = "/v1/"
SEGMENTS = ("segment", "matched_segments", "new_segments", "orphaned_segments")
"""What holds names of variables, which belong to a campaign and not to the API."""


class EnvelopeChanger:
    """Middleware that rewrites the good answers of the API, as the envelope is called.

    *data*: the answer is the value of `data` in an object. *bare*: an object that holds one text or
    one array, and nothing else, is answered as that text or array. *camel*: camel case for names.
    Errors, redirects and answers without a body stay as they are.
    """

    def __init__(self, app: ASGIApp, envelope: Envelope) -> None:
        self._app = app
        self._envelope: Envelope = envelope

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(API):
            await self._app(scope, receive, send)
            return
        start: Message = {}
        body = b""

        async def rewritten(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if message.get("more_body", False):
                return
            if start["status"] < 300 and body:
                answer = _in_envelope(json.loads(body), self._envelope)
                body = json.dumps(answer, ensure_ascii=False).encode()
                MutableHeaders(raw=start["headers"])["content-length"] = str(len(body))
            await send(start)
            await send({**message, "body": body})

        await self._app(scope, receive, rewritten)


def _in_envelope(answer: Any, envelope: Envelope) -> Any:
    match envelope:
        case "data":
            return {"data": answer}
        case "bare":
            values: list[Any] = [*answer.values()]
            is_bare = [type(each) for each in values] in ([str], [list])
            return values[0] if is_bare else answer
        case "camel":
            return _in_camel_case(answer)
        case "object":
            return answer


def _in_camel_case(value: Any) -> Any:
    match value:
        case dict():
            named = cast("dict[str, Any]", value).items()
            return {
                to_camel(name): each if name in SEGMENTS else _in_camel_case(each)
                for name, each in named
            }
        case list():
            return [_in_camel_case(each) for each in cast("list[Any]", value)]
        case _:
            return value
