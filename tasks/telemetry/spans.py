"""The spans that leave this process: Prefect's of flow and task runs, ours of calls."""

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from time import monotonic

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status
from opentelemetry.util.types import AttributeValue
from prefect.context import FlowRunContext

from nudgescribe import telemetry
from tasks.telemetry.logs import current_run

PREFIX = "nudgeflow."
CAMPAIGN, RUN, FLOW_RUN = f"{PREFIX}campaign.id", f"{PREFIX}run.number", f"{PREFIX}flow_run.id"
NAMES = {CAMPAIGN, RUN, FLOW_RUN}
SENT = {
    *("prefect.run.name", "prefect.run.type", "prefect.run.id", "prefect.tags", "prefect.flow.id"),
    *(telemetry.METHOD, telemetry.ENDPOINT, telemetry.STATUS, telemetry.ERROR),
    *NAMES,
}
"""The attributes that are sent; labels of flow runs, which Prefect adds, may hold anything."""
SENT_OF_EVENTS = {
    "prefect.state.type",
    "prefect.state.name",
    "prefect.state.id",
    "exception.type",
}


PAUSE_SECONDS = 5.0


class RunNames(SpanProcessor):
    """Gives spans the campaign, the run and the flow run that they belong to, and ends those that
    are open when the process ends: Prefect leaves that of a suspended flow run open.
    """

    def __init__(self) -> None:
        self._open: dict[int, Span] = {}
        self._lock = Lock()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Name a span, and the one around it: a flow run's begins before its parameters are known;
        threads of our own know only the span around.
        """
        around = trace.get_current_span(parent_context)
        names = _names() or _of(around)
        span.set_attributes(names)
        for each in (around, trace.get_current_span()):
            if names and each.is_recording() and _of(each).keys() != names.keys():
                each.set_attributes(names)
        if span.context:
            with self._lock:
                self._open[span.context.span_id] = span

    def on_end(self, span: ReadableSpan) -> None:
        """Forget a span."""
        if span.context:
            with self._lock:
                self._open.pop(span.context.span_id, None)

    def shutdown(self) -> None:
        """End the spans that are open."""
        for span in reversed(list(self._open.values())):
            span.end()


class DiscreetExporter(SpanExporter):
    """Sends spans by another exporter, without the texts of errors and states: those are for people
    who may look into Prefect.

    After a failure it drops spans for a while: at the process's end there may be several batches,
    and each would wait for a receiver that is away.
    """

    def __init__(self, exporter: SpanExporter, clock: Callable[[], float] = monotonic) -> None:
        self._exporter = exporter
        self._clock = clock
        self._resume_at = 0.0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans."""
        if self._clock() < self._resume_at:
            return SpanExportResult.FAILURE
        result = self._exporter.export([*map(_discreet, spans)])
        if result is not SpanExportResult.SUCCESS:
            self._resume_at = self._clock() + PAUSE_SECONDS
        return result

    def shutdown(self) -> None:
        """Close the other exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Make the other exporter send what it holds."""
        return self._exporter.force_flush(timeout_millis)


def _names() -> dict[str, AttributeValue]:
    context, names = FlowRunContext.get(), current_run()
    if names is None or context is None or context.flow_run is None:
        return {}
    campaign, run = names
    found = {FLOW_RUN: str(context.flow_run.id), CAMPAIGN: campaign, RUN: run}
    return {name: value for name, value in found.items() if value is not None}


def _of(span: trace.Span) -> dict[str, AttributeValue]:
    """Return the names that a span has."""
    return _only(NAMES, span.attributes if isinstance(span, ReadableSpan) else None)


def _discreet(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_only(SENT, span.attributes),
        events=[
            Event(event.name, _only(SENT_OF_EVENTS, event.attributes), event.timestamp)
            for event in span.events
        ],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _only(
    names: set[str], attributes: Mapping[str, AttributeValue] | None
) -> dict[str, AttributeValue]:
    return {name: value for name, value in (attributes or {}).items() if name in names}
