"""A transport between client and service that tampers with what the service answers."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx

Fault = httpx.Response | type[httpx.TransportError]
Change = Callable[[Any], object]
"""Changes the body of an answer."""


class ResponseTamperer(httpx.BaseTransport):
    """Sends requests on, but plays a fault for the n-th call of a path, None for no fault.

    Those of `faults` are played instead of the call; those of `after` instead of its answer, so the
    service has done its work. `answer` takes the place of a real service. `calls` counts by path.
    """

    def __init__(
        self,
        faults: dict[str, list[Fault | None]] | None = None,
        after: dict[str, list[Fault | None]] | None = None,
        answer: Callable[[httpx.Request], httpx.Response] | None = None,
    ) -> None:
        self._before = faults or {}
        self._after = after or {}
        self._answer = answer
        self._real = httpx.HTTPTransport()
        self.calls: Counter[str] = Counter()
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        turn = self.calls[path]
        self.calls[path] += 1
        self.requests.append(request)
        fault = _fault(self._before, path, turn)
        if fault is not None:
            return _play(fault, request)
        response = self._answer(request) if self._answer else self._real.handle_request(request)
        lost = _fault(self._after, path, turn)
        if lost is not None:
            response.read()
            response.close()
            return _play(lost, request)
        return response

    def close(self) -> None:
        self._real.close()


def _fault(faults: dict[str, list[Fault | None]], path: str, turn: int) -> Fault | None:
    given = faults.get(path, [])
    return given[turn] if turn < len(given) else None


def _play(fault: Fault, request: httpx.Request) -> httpx.Response:
    if isinstance(fault, httpx.Response):
        return fault
    raise fault("provoked", request=request)


def answering(content: bytes | str, status: int = 200) -> ResponseTamperer:
    """A service that gives one answer to everything but signing in."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/auth":
            tokens = {"access_token": "a", "refresh_token": "r", "token_type": "Bearer"}
            return httpx.Response(200, json={**tokens, "expires_in": 3600})
        return httpx.Response(status, content=content)

    return ResponseTamperer(answer=answer)


class Changed(ResponseTamperer):
    """A service whose answers on one path are changed."""

    def __init__(self, path: str, change: Change) -> None:
        super().__init__()
        self._path, self._change = path, change

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        if request.url.path != self._path:
            return response
        response.read()
        response.close()
        body = response.json()
        self._change(body)
        return httpx.Response(response.status_code, json=body)
