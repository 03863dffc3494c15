"""A receiver of OpenTelemetry's protocol and of OpenLineage, and processes that send to it."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prefect.settings import PREFECT_API_URL, PREFECT_HOME

from tests.support.http_server import FakeService, Reply, Request

ROOT = Path(__file__).parents[2]
TRACES, METRICS, LINEAGE = "/v1/traces", "/v1/metrics", "/api/v1/lineage"


@dataclass(frozen=True)
class Point:
    """A number of a metric, or the count and the sum of a histogram."""

    metric: str
    attributes: dict[str, Any]
    value: float
    count: int = 0


class Receiver(FakeService):
    def answer(self, request: Request) -> Reply:
        assert request.path in (TRACES, METRICS, LINEAGE)
        return Reply(headers={"content-type": "application/x-protobuf"})

    @property
    def received(self) -> bytes:
        return b"\0".join(request.body for request in self.requests)

    def spans(self) -> list[Span]:
        requests = map(ExportTraceServiceRequest.FromString, self._bodies(TRACES))
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resources(self) -> list[dict[str, Any]]:
        """The resource of each message of metrics."""
        requests = map(ExportMetricsServiceRequest.FromString, self._bodies(METRICS))
        return [
            attributes_of(each.resource.attributes)
            for request in requests
            for each in request.resource_metrics
        ]

    def points(self, metric: str) -> list[Point]:
        """The last numbers of a metric; a process sends all of them each time."""
        last = ExportMetricsServiceRequest.FromString([*self._bodies(METRICS)][-1])
        return [
            point
            for resource in last.resource_metrics
            for scope in resource.scope_metrics
            for each in scope.metrics
            if each.name == metric
            for point in _points(each)
        ]

    def by(self, metric: str, *attributes: str) -> Counter[Any]:
        """The sums of a metric by attributes."""
        sums: Counter[Any] = Counter()
        for point in self.points(metric):
            values = tuple(point.attributes.get(name) for name in attributes)
            sums[values[0] if len(values) == 1 else values] += point.count or int(point.value)
        return sums

    def metrics(self) -> set[str]:
        """The names of all metrics, in all messages."""
        requests = map(ExportMetricsServiceRequest.FromString, self._bodies(METRICS))
        return {
            each.name
            for request in requests
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for each in scope.metrics
        }

    def _bodies(self, path: str) -> list[bytes]:
        return [request.body for request in self.requests if request.path == path]


def _points(metric: Any) -> list[Point]:
    if metric.HasField("histogram"):
        return [
            Point(metric.name, attributes_of(each.attributes), each.sum, each.count)
            for each in metric.histogram.data_points
        ]
    return [
        Point(metric.name, attributes_of(each.attributes), each.as_int or each.as_double)
        for each in metric.sum.data_points
    ]


def attributes_of(pairs: Any) -> dict[str, Any]:
    def value(pair: KeyValue) -> Any:
        kind = pair.value.WhichOneof("value")
        return getattr(pair.value, kind) if kind else None

    return {pair.key: value(pair) for pair in pairs}


def run_program(program: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Runs a program in a process of its own, with the tests' Prefect."""
    return run_python("-c", program, **variables)


def run_python(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Runs Python in a process of its own, with the tests' Prefect."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        "PREFECT_HOME": str(PREFECT_HOME.value()),
        **variables,
    }
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
