"""Calls and downloads in flight: how many there are now, and their peak."""

from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CALLS, DOWNLOADS = "/v1/", "/exports/"


class InFlightCount:
    """Count of responses of one kind. Not thread-safe: for the event loop alone."""

    def __init__(self) -> None:
        self._open: set[InFlightResponse] = set()
        self.peak = 0

    @property
    def now(self) -> int:
        """Return the number of responses in flight, without those whose connection is closed."""
        self._open = {response for response in self._open if not response.is_closed}
        return len(self._open)

    def add(self, response: "InFlightResponse") -> None:
        """Count a response that has begun."""
        self._open.add(response)
        self.peak = max(self.peak, self.now)

    def discard(self, response: "InFlightResponse") -> None:
        """Stop counting a response; nothing happens if it is not counted."""
        self._open.discard(response)

    def reset_peak(self) -> None:
        """Set the peak to the responses in flight now."""
        self.peak = self.now


class InFlightCounts:
    """The counts of a service, by kind of response."""

    def __init__(self) -> None:
        self.calls = InFlightCount()
        self.downloads = InFlightCount()

    def count_of(self, path: str) -> InFlightCount | None:
        """Return the count for a path, None if its responses are not counted."""
        if path.startswith(CALLS):
            return self.calls
        return self.downloads if path.startswith(DOWNLOADS) else None


class InFlightResponse:
    """One response; it has ended when its last byte is about to be sent.

    A client can have its next call here before `send` comes back.
    """

    def __init__(self, send: Send, count: InFlightCount) -> None:
        self._send = send
        self._count = count
        self._bytes_left = 0

    @property
    def transport(self) -> Any:
        """Return the connection; uvicorn's `send` belongs to its cycle."""
        return self._send.__self__.transport  # type: ignore[attr-defined]

    @property
    def is_closed(self) -> bool:
        """Return whether the connection is closed, though the service may still be at work."""
        return self.transport.is_closing()

    async def send(self, message: Message) -> None:
        """Pass a message on; stop counting before the last one."""
        if message["type"] == "http.response.start":
            # Without a length it never gets to 0.
            self._bytes_left = int(Headers(raw=message["headers"]).get("content-length", -1))
        else:
            self._bytes_left -= len(message.get("body", b""))
            if self._bytes_left == 0 or not message.get("more_body", False):
                self._count.discard(self)
        await self._send(message)


class InFlightCounter:
    """Middleware that counts calls and downloads; other paths it only passes on."""

    def __init__(self, app: ASGIApp, counts: InFlightCounts) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        count = self._counts.count_of(scope["path"]) if scope["type"] == "http" else None
        if count is None:
            await self._app(scope, receive, send)
            return
        response = InFlightResponse(send, count)
        count.add(response)
        try:
            await self._app(scope, receive, response.send)
        finally:
            count.discard(response)
