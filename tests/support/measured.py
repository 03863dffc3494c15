"""What is measured in this process, without a receiver."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from nudgescribe import telemetry
from tasks.telemetry import measures
from tasks.telemetry.spans import DiscreetExporter, RunNames


@dataclass
class Measured:
    reader: InMemoryMetricReader
    exporter: InMemorySpanExporter
    tracers: TracerProvider

    def spans(self) -> list[ReadableSpan]:
        """Those that have ended, in this order."""
        return [*self.exporter.get_finished_spans()]

    def sums(self, metric: str, *attributes: str) -> Counter[Any]:
        """The sums of a metric, or the counts of a histogram, by these attributes."""
        data: Any = self.reader.get_metrics_data()
        sums: Counter[Any] = Counter()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for each in scope.metrics:
                    for point in each.data.data_points if each.name == metric else ():
                        key = tuple(point.attributes.get(name) for name in attributes)
                        sums[key] += getattr(point, "count", 0) or point.value
        return sums


@contextmanager
def measuring() -> Iterator[Measured]:
    """Measures all that begins in the block; the process's own providers stay as they are."""
    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(RunNames())
    tracers.add_span_processor(SimpleSpanProcessor(DiscreetExporter(exporter)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(metrics, "get_meter", meters.get_meter)
        patched.setattr(trace, "get_tracer", tracers.get_tracer)
        for module in (telemetry, measures):
            patched.setattr(module, "_instruments", None)
            module.switch_on()
        yield Measured(reader, exporter, tracers)
    meters.shutdown()
    tracers.shutdown()
