"""OpenTelemetry's providers, which send over HTTP in the background, and what they hold at the
process's end.
"""

import atexit
import logging
import os
from collections.abc import Set
from functools import partial

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http import metric_exporter, trace_exporter
from opentelemetry.sdk.environment_variables import OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from nudgescribe import __version__, telemetry
from tasks.telemetry import measures
from tasks.telemetry.spans import DiscreetExporter, RunNames

SECONDS = 2.0
"""For sending, with retries, unless OTEL_EXPORTER_OTLP_TIMEOUT or a signal's own says otherwise; a
process without a receiver ends so much later, once for each signal.
"""
CLOSING_SECONDS = 5.0
"""For all that a signal still holds at the process's end: a receiver may be slow, or answer without
an end, which no time limit of a call bounds.
"""
SERVICE = "nudgeflow"


def set_providers(signals: Set[str]) -> None:
    """Send the signals, "TRACES" and "METRICS". A program that has set providers keeps its own."""
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        resource = _resource()
        if "METRICS" in signals:
            _tell_failures_once(metric_exporter.__name__)
            exporter = metric_exporter.OTLPMetricExporter(timeout=_timeout("METRICS"))
            meters = MeterProvider(
                [PeriodicExportingMetricReader(exporter)], resource, shutdown_on_exit=False
            )
            metrics.set_meter_provider(meters)
            atexit.register(partial(meters.shutdown, _closing_millis("METRICS")))
        if "TRACES" in signals:
            _tell_failures_once(trace_exporter.__name__)
            tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
            tracers.add_span_processor(RunNames())
            tracers.add_span_processor(
                _Batches(
                    DiscreetExporter(trace_exporter.OTLPSpanExporter(timeout=_timeout("TRACES")))
                )
            )
            trace.set_tracer_provider(tracers)
            atexit.register(tracers.shutdown)
    telemetry.switch_on()
    measures.switch_on()


def _resource() -> Resource:
    """Return what is known of this process; each has an id of its own, forks too."""
    named = os.environ.get(OTEL_SERVICE_NAME) or "service.name=" in os.environ.get(
        OTEL_RESOURCE_ATTRIBUTES, ""
    )
    name = {} if named else {"service.name": SERVICE}
    return Resource.create({**name, "service.version": __version__})


class _Batches(BatchSpanProcessor):
    """Sends spans in the background, and at the end does not wait for long."""

    def shutdown(self) -> None:
        """Send what is held."""
        self._batch_processor.shutdown(_closing_millis("TRACES"))


def _timeout(signal: str) -> float | None:
    """Return the seconds for sending; None if the environment tells them."""
    return None if _given_timeout(signal) else SECONDS


def _closing_millis(signal: str) -> int:
    return round(1000 * max(CLOSING_SECONDS, float(_given_timeout(signal) or 0)))


def _given_timeout(signal: str) -> str | None:
    given = os.environ.get
    return given(f"OTEL_EXPORTER_OTLP_{signal}_TIMEOUT") or given("OTEL_EXPORTER_OTLP_TIMEOUT")


class _Once(logging.Filter):
    """Lets one warning pass, in our words: the exporter's name the receiver, at each try."""

    def __init__(self) -> None:
        super().__init__()
        self._told = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is the first one."""
        if record.levelno < logging.WARNING:
            return True
        told, self._told = self._told, True
        record.msg, record.args = "Telemetry is not received; flows go on without it.", ()
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        return not told


def _tell_failures_once(logger: str) -> None:
    logging.getLogger(logger).addFilter(_Once())
