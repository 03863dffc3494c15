"""Fault injection for rehearsals: answers that are wrong, late, cut short or lost."""

import asyncio
from random import Random
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nudgescribe.contract import Text
from sandbox.errors import LINK_REFUSED, error_response

EXEMPT = ("/sandbox/", "/page/")
"""Paths that never fail: those that switch faults on and off."""
LINKS = "/exports/"


class Fault(BaseModel):
    """What goes wrong at `endpoint`: a path, or all paths below one that ends with a slash.

    With a `method`, only its calls fail. `status` is answered in the service's place, with
    `retry_after` seconds if given. `delay` is in seconds. `expired` refuses the call's token, or a
    page's link, as expired. `drop` closes the connection *before* the service sees the call, or
    *after* its work, so that the answer is lost. `truncate` sends half of the answer's body and
    closes the connection; `dribble` sends the body byte by byte, this many seconds apart. The
    fault fires for a share `rate` of the calls, the same ones for the same `seed`, at most `times`.
    """

    model_config = ConfigDict(extra="forbid")

    endpoint: str = Field(pattern="^/", max_length=200, examples=["/v1/messages/fetch", "/v1/"])
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] | None = None
    status: int | None = Field(default=None, ge=400, le=599)
    retry_after: int | None = Field(default=None, ge=0, le=86_400)
    delay: float = Field(default=0, ge=0, le=600)
    expired: bool = False
    drop: Literal["before", "after"] | None = None
    truncate: bool = False
    dribble: float | None = Field(default=None, gt=0, le=60)
    rate: float = Field(default=1, gt=0, le=1)
    seed: int = 0
    times: int | None = Field(default=None, ge=1)


class ActiveFault:
    """A fault that is switched on, and how often it has fired."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.hits = 0
        self._random = Random(fault.seed)

    def matches(self, method: str, path: str) -> bool:
        """Return whether the fault is for calls of this method and path."""
        endpoint = self.fault.endpoint
        matches = path.startswith(endpoint) if endpoint.endswith("/") else path == endpoint
        return matches and self.fault.method in (None, method)

    @property
    def specificity(self) -> tuple[int, bool]:
        """Return how exactly the fault names its calls: by path length, then by method."""
        return len(self.fault.endpoint), self.fault.method is not None

    def should_fire(self) -> bool:
        """Decide, by rate and times, whether this call fails; count it if it does."""
        exhausted = self.fault.times is not None and self.hits >= self.fault.times
        if exhausted or self._random.random() >= self.fault.rate:
            return False
        self.hits += 1
        return True


class Faults:
    """The active faults, one per endpoint and method; the most specific one for a call counts."""

    def __init__(self) -> None:
        self._active: dict[tuple[str, str | None], ActiveFault] = {}

    def put(self, fault: Fault) -> None:
        """Switch a fault on, in place of an earlier one for its endpoint and method."""
        self._active[fault.endpoint, fault.method] = ActiveFault(fault)

    def clear(self) -> None:
        """Switch all faults off."""
        self._active.clear()

    def all(self) -> list[ActiveFault]:
        """Return the active faults."""
        return list(self._active.values())

    def fire(self, method: str, path: str) -> Fault | None:
        """Return the fault that this call suffers, None if it suffers none."""
        matching = [each for each in self.all() if each.matches(method, path)]
        active = max(matching, key=lambda each: each.specificity, default=None)
        return active.fault if active and active.should_fire() else None


class FaultInjector:
    """Middleware that applies the active faults to calls."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fire(scope) if scope["type"] == "http" else None
        if fault is None:
            await self._app(scope, receive, send)
            return
        await asyncio.sleep(fault.delay)
        if fault.drop == "before":
            await _abort(send)
        elif fault.drop == "after":
            await self._app(scope, receive, _discard)
            await _abort(send)
        elif fault.status is not None:
            await _status_response(fault.status, fault.retry_after)(scope, receive, send)
        elif fault.expired and (response := _expired_response(scope)):
            await response(scope, receive, send)
        elif fault.truncate:
            await self._app(scope, receive, _Truncated(send))
        elif fault.dribble:
            await self._app(scope, receive, _Dribbled(send, fault.dribble))
        else:
            await self._app(scope, receive, send)

    def _fire(self, scope: Scope) -> Fault | None:
        path: str = scope["path"]
        exempt = path == "/" or path.startswith(EXEMPT)
        return None if exempt else self._faults.fire(scope["method"], path)


class _Truncated:
    """Sender of the first half of a body; the Content-Length is that of the whole."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._bytes_left = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._bytes_left = int(MutableHeaders(raw=message["headers"])["content-length"]) // 2
            await self._send(message)
            return
        body = message.get("body", b"")[: self._bytes_left]
        self._bytes_left -= len(body)
        if body:
            await self._send({**message, "body": body, "more_body": True})
        if not self._bytes_left:
            await _abort(self._send)


class _Dribbled:
    """Sender of a body byte by byte, until the connection is closed."""

    def __init__(self, send: Send, pause: float) -> None:
        self._send = send
        self._pause = pause

    async def __call__(self, message: Message) -> None:
        body: bytes = message.get("body", b"")
        for index in range(len(body)):
            await self._send({**message, "body": body[index : index + 1], "more_body": True})
            await asyncio.sleep(self._pause)
            if _transport(self._send).is_closing():
                return
        await self._send({**message, "body": b""} if body else message)


def _status_response(status: int, retry_after: int | None) -> Response:
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    return error_response(status, "A fault switched on in the sandbox.", headers)


def _expired_response(scope: Scope) -> Response | None:
    """Return the refusal of an expired token or link, None for a call that has neither."""
    if scope["path"].startswith(LINKS):
        return error_response(403, LINK_REFUSED)
    has_token = "authorization" in Headers(scope=scope)
    return error_response(403, Text.AUTH_ERROR) if has_token else None


async def _discard(message: Message) -> None:
    """Send a message nowhere."""


def _transport(send: Any) -> asyncio.Transport:
    # ASGI does not show it; uvicorn's `send` belongs to the connection's cycle.
    return send.__self__.transport


async def _abort(send: Send) -> None:
    _transport(send).abort()
    await asyncio.sleep(0)
