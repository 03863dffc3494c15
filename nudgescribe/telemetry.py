"""What calls of the service take, told to OpenTelemetry from `switch_on` on; before, it costs
nothing.

Spans and metrics name endpoints, methods, statuses and kinds of errors, never an identifier, a URL,
a header or a body. They go to the providers of traces and metrics that the program has set.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import httpx

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Histogram
    from opentelemetry.trace import Span, Tracer

T = TypeVar("T")

LINK = "signed link"
"""The endpoint that a download by link counts as."""
CALL_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
METHOD, ENDPOINT, STATUS = "http.request.method", "url.template", "http.response.status_code"
ERROR = "error.type"
_SCOPE = "nudgescribe"


class _Instruments:
    """Where calls, waits and bytes are told."""

    def __init__(self) -> None:
        from opentelemetry import metrics, trace

        meter = metrics.get_meter(_SCOPE)
        self.tracer: Tracer = trace.get_tracer(_SCOPE)
        self.calls: Histogram = meter.create_histogram(
            "nudgeflow.call.duration",
            "s",
            "Calls of Nudgescribe and downloads by link, until their answer was read.",
            explicit_bucket_boundaries_advisory=CALL_SECONDS,
        )
        self.waits: Counter = meter.create_counter(
            "nudgeflow.wait", "s", "Waits before a call is repeated, or for a shared limit."
        )
        self.downloads: Counter = meter.create_counter(
            "nudgeflow.download", "By", "Pages of messages that were downloaded."
        )


_instruments: _Instruments | None = None


def switch_on() -> None:
    """Tell OpenTelemetry about the calls of all clients that are made from now on."""
    global _instruments
    _instruments = _instruments or _Instruments()


class Call:
    """A call that has begun: a span until its end, then also a number of a metric."""

    def __init__(self, instruments: _Instruments, method: str, endpoint: str) -> None:
        from opentelemetry.trace import SpanKind

        self._instruments = instruments
        self._attributes: dict[str, str | int] = {METHOD: method, ENDPOINT: endpoint}
        self._began = monotonic()
        self._span: Span | None = instruments.tracer.start_span(
            f"{method} {endpoint}", kind=SpanKind.CLIENT, attributes=self._attributes
        )

    def answered(self, status: int) -> None:
        """Note the status of its answer."""
        self._attributes[STATUS] = status
        if status >= 400:
            self._attributes[ERROR] = str(status)

    def failed(self, error: BaseException) -> None:
        """Note the kind of what it has failed with."""
        self._attributes[ERROR] = type(error).__name__

    def end(self) -> None:
        """End it, if it has not ended before."""
        from opentelemetry.trace import StatusCode

        span, self._span = self._span, None
        if span is None:
            return
        span.set_attributes(self._attributes)
        if ERROR in self._attributes:
            span.set_status(StatusCode.ERROR)
        span.end()
        self._instruments.calls.record(monotonic() - self._began, self._attributes)


@contextmanager
def observe(method: str, endpoint: str) -> Generator[Callable[[int], None]]:
    """Tell of the call in the block, which passes the status of its answer to the function."""
    if _instruments is None:
        yield lambda status: None
        return
    call = Call(_instruments, method, endpoint)
    try:
        yield call.answered
    except BaseException as error:
        call.failed(error)
        raise
    finally:
        call.end()


def observed(transport: httpx.BaseTransport, base_url: str) -> httpx.BaseTransport:
    """Return a transport that tells of the calls through this one, if that is switched on."""
    return transport if _instruments is None else _Observed(_instruments, transport, base_url)


def waited(reason: Literal["retry", "limit"], seconds: float) -> None:
    """Tell how long a call has waited before it was made."""
    if _instruments is not None:
        _instruments.waits.add(seconds, {"reason": reason})


def downloaded(size: int, way: Literal["link", "text"]) -> None:
    """Tell that a page of `size` bytes has been downloaded."""
    if _instruments is not None:
        _instruments.downloads.add(size, {"way": way})


def within_span(function: Callable[..., T]) -> Callable[..., T]:
    """Return the function for a thread of our own: its calls belong to the span that is current
    here.
    """
    if _instruments is None:
        return function
    from opentelemetry import context

    here = context.get_current()

    def run(*arguments: Any) -> T:
        token = context.attach(here)
        try:
            return function(*arguments)
        finally:
            context.detach(token)

    return run


class _Observed(httpx.BaseTransport):
    """Tells of each call through another transport, signing in and refused ones included."""

    def __init__(
        self, instruments: _Instruments, transport: httpx.BaseTransport, base_url: str
    ) -> None:
        self._instruments = instruments
        self._transport = transport
        self._prefix = httpx.URL(base_url).path.rstrip("/")

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; its call ends when the answer's body is closed."""
        # No path of the API holds an identifier: they are all in bodies.
        endpoint = request.url.path.removeprefix(self._prefix)
        call = Call(self._instruments, request.method, endpoint)
        try:
            response = self._transport.handle_request(request)
        except BaseException as error:
            call.failed(error)
            call.end()
            raise
        call.answered(response.status_code)
        if response.is_closed:  # it came with its body, whose end nobody will wait for
            call.end()
            return response
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = _ObservedStream(response.stream, call)
        return response

    def close(self) -> None:
        """Close the other transport."""
        self._transport.close()


class _ObservedStream(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, call: Call) -> None:
        self._stream = stream
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except Exception as error:
            self._call.failed(error)
            raise

    def close(self) -> None:
        self._stream.close()
        self._call.end()
