"""What spans say when they leave the process."""

from collections.abc import Iterator, Sequence
from secrets import token_hex

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, Tracer

from tasks.telemetry.spans import PAUSE_SECONDS, DiscreetExporter, RunNames

SECRET = f"secret{token_hex(8)}"


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(RunNames())
    provider.add_span_processor(SimpleSpanProcessor(DiscreetExporter(exporter)))
    yield provider
    provider.shutdown()


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(provider: TracerProvider) -> Tracer:
    return provider.get_tracer("tests")


def test_texts_of_errors_states_and_labels_stay_here(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    attributes = {"prefect.run.name": "refresh", "label": SECRET, "prefect.tags": ["nightly"]}
    span = tracer.start_span("refresh", attributes=attributes)
    span.add_event("Failed", {"prefect.state.name": "Failed", "prefect.state.message": SECRET})
    span.record_exception(ValueError(SECRET))
    span.set_status(StatusCode.ERROR, SECRET)
    span.end()
    sent = exporter.get_finished_spans()
    assert SECRET.encode() not in encode_spans(sent).SerializeToString()
    (one,) = sent
    assert one.status.status_code is StatusCode.ERROR
    assert dict(one.attributes or {}) == {
        "prefect.run.name": "refresh",
        "prefect.tags": ("nightly",),
    }
    assert [dict(event.attributes or {}) for event in one.events] == [
        {"prefect.state.name": "Failed"},
        {"exception.type": "ValueError"},
    ]


def test_span_of_a_flow_run_that_sleeps_is_sent_when_its_process_ends(
    tracer: Tracer, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    tracer.start_span("refresh")
    tracer.start_span("ended").end()
    assert [span.name for span in exporter.get_finished_spans()] == ["ended"]
    provider.shutdown()
    assert [span.name for span in exporter.get_finished_spans()] == ["ended", "refresh"]


def test_exporter_that_has_failed_is_spared_for_a_while() -> None:
    tries: list[int] = []

    class Failing(InMemorySpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            tries.append(len(spans))
            return SpanExportResult.FAILURE

    now = [0.0]
    exporter = DiscreetExporter(Failing(), lambda: now[0])
    for now[0] in (0.0, 1.0, PAUSE_SECONDS - 0.1, PAUSE_SECONDS):
        assert exporter.export([ReadableSpan("one")]) is SpanExportResult.FAILURE
    assert tries == [1, 1]
