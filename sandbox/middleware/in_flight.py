"""How many calls and downloads are being answered, and the most there ever were at a moment."""

from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CALLS, DOWNLOADS = "/v1/", "/exports/"


class Count:
    """Of the answers of one kind. Used on the event loop alone."""

    def __init__(self) -> None:
        self._open: set[Answer] = set()
        self.most = 0

    @property
    def now(self) -> int:
        """Without those whose connection has broken, though the service may still be at work."""
        self._open = {answer for answer in self._open if not answer.is_broken}
        return len(self._open)

    def add(self, answer: "Answer") -> None:
        self._open.add(answer)
        self.most = max(self.most, self.now)

    def discard(self, answer: "Answer") -> None:
        self._open.discard(answer)

    def forget(self) -> None:
        self.most = self.now


class Traffic:
    """What the service is busy with."""

    def __init__(self) -> None:
        self.calls = Count()
        self.downloads = Count()

    def count_of(self, path: str) -> Count | None:
        if path.startswith(CALLS):
            return self.calls
        return self.downloads if path.startswith(DOWNLOADS) else None


class Answer:
    """Passes an answer on, and has ended when its last byte is about to go: a client can have its
    next call here before `send` comes back.
    """

    def __init__(self, send: Send, count: Count) -> None:
        self._send = send
        self._count = count
        self._left = 0

    @property
    def transport(self) -> Any:
        """The connection: uvicorn's `send` belongs to its cycle."""
        return self._send.__self__.transport  # type: ignore[attr-defined]

    @property
    def is_broken(self) -> bool:
        return self.transport.is_closing()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            # Without a length it never gets to nought.
            self._left = int(Headers(raw=message["headers"]).get("content-length", -1))
        else:
            self._left -= len(message.get("body", b""))
            if self._left == 0 or not message.get("more_body", False):
                self._count.discard(self)
        await self._send(message)


class CountedApp:
    """Counts what it passes on. The switches and the page for people are not counted."""

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self._app = app
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        count = self._traffic.count_of(scope["path"]) if scope["type"] == "http" else None
        if count is None:
            await self._app(scope, receive, send)
            return
        answer = Answer(send, count)
        count.add(answer)
        try:
            await self._app(scope, receive, answer.send)
        finally:
            count.discard(answer)
