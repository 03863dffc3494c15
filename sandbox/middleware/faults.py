"""Faults on request, for rehearsals: answers that are wrong, late, cut short or lost."""

import asyncio
from random import Random
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nudgescribe.contract import Text
from sandbox.errors import answer

SPARED = ("/sandbox/", "/page/")
"""The switches themselves never fail."""
LINKS = "/exports/"


class Fault(BaseModel):
    """What goes wrong at `endpoint`, a path; one that ends with a slash stands for all below it.
    With a `method` only calls of that one are meant.

    `status` is answered in the service's place, with `retry_after` seconds if given. `delay` is in
    seconds. `expired` refuses the call's token, or the link of a page, as one that has expired. A
    connection is dropped *before* the service sees the call, or *after* it has done the work: the
    answer is lost. `truncate` sends half of the answer's body and drops the connection; `dribble`
    sends the body a byte at a time, so many seconds apart. A share `rate` of the calls is hit, the
    same ones for the same `seed`, at most `times`.
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


class Switch:
    """A fault that is on, and its memory."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.hits = 0
        self._random = Random(fault.seed)

    def matches(self, method: str, path: str) -> bool:
        place = self.fault.endpoint
        here = path.startswith(place) if place.endswith("/") else path == place
        return here and self.fault.method in (None, method)

    @property
    def closeness(self) -> tuple[int, bool]:
        return len(self.fault.endpoint), self.fault.method is not None

    def strikes(self) -> bool:
        worn_out = self.fault.times is not None and self.hits >= self.fault.times
        if worn_out or self._random.random() >= self.fault.rate:
            return False
        self.hits += 1
        return True


class Faults:
    """The faults that are on, one an endpoint and method; the closest to a call counts."""

    def __init__(self) -> None:
        self._switches: dict[tuple[str, str | None], Switch] = {}

    def put(self, fault: Fault) -> None:
        self._switches[fault.endpoint, fault.method] = Switch(fault)

    def clear(self) -> None:
        self._switches.clear()

    def all(self) -> list[Switch]:
        return list(self._switches.values())

    def strike(self, method: str, path: str) -> Fault | None:
        """The fault that hits this call, if one does."""
        near = [switch for switch in self.all() if switch.matches(method, path)]
        closest = max(near, key=lambda switch: switch.closeness, default=None)
        return closest.fault if closest and closest.strikes() else None


class FaultyApp:
    """Plays the faults that are on."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._strikes(scope) if scope["type"] == "http" else None
        if fault is None:
            await self._app(scope, receive, send)
            return
        await asyncio.sleep(fault.delay)
        if fault.drop == "before":
            await _hang_up(send)
        elif fault.drop == "after":
            await self._app(scope, receive, _nowhere)
            await _hang_up(send)
        elif fault.status is not None:
            text = "A fault switched on in the sandbox."
            refusal = answer(fault.status, text, retry_after=fault.retry_after)
            await refusal(scope, receive, send)
        elif fault.expired and (refusal := _expired(scope)):
            await refusal(scope, receive, send)
        elif fault.truncate:
            await self._app(scope, receive, _HalfBody(send))
        elif fault.dribble:
            await self._app(scope, receive, _Dribble(send, fault.dribble))
        else:
            await self._app(scope, receive, send)

    def _strikes(self, scope: Scope) -> Fault | None:
        path: str = scope["path"]
        spared = path == "/" or path.startswith(SPARED)
        return None if spared else self._faults.strike(scope["method"], path)


class _HalfBody:
    """Sends the first half of a body whose length the header still tells."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._left = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._left = int(MutableHeaders(raw=message["headers"])["content-length"]) // 2
            await self._send(message)
            return
        body = message.get("body", b"")[: self._left]
        self._left -= len(body)
        if body:
            await self._send({**message, "body": body, "more_body": True})
        if not self._left:
            await _hang_up(self._send)


class _Dribble:
    """Sends a body byte by byte, for as long as somebody listens."""

    def __init__(self, send: Send, pause: float) -> None:
        self._send = send
        self._pause = pause

    async def __call__(self, message: Message) -> None:
        body: bytes = message.get("body", b"")
        for place in range(len(body)):
            await self._send({**message, "body": body[place : place + 1], "more_body": True})
            await asyncio.sleep(self._pause)
            if _transport(self._send).is_closing():
                return
        await self._send({**message, "body": b""} if body else message)


def _expired(scope: Scope) -> Response | None:
    """What a call with an expired token or link is told; signing in needs neither."""
    if scope["path"].startswith(LINKS):
        return answer(403, "The link has expired or was not issued here.")
    return answer(403, Text.AUTH_ERROR) if "authorization" in Headers(scope=scope) else None


async def _nowhere(message: Message) -> None:
    pass


def _transport(send: Any) -> asyncio.Transport:
    # ASGI has no word for this; uvicorn's `send` belongs to the connection's cycle.
    return send.__self__.transport


async def _hang_up(send: Send) -> None:
    _transport(send).abort()
    await asyncio.sleep(0)
