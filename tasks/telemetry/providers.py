"""OpenTelemetry's providers, which send over HTTP in the background, and what they hold at the
process's end.
"""

import atexit
import logging
import os
from collections.abc import Set

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
            atexit.register(meters.shutdown)
        if "TRACES" in signals:
            _tell_failures_once(trace_exporter.__name__)
            tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
            tracers.add_span_processor(RunNames())
            tracers.add_span_processor(
                BatchSpanProcessor(
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


def _timeout(signal: str) -> float | None:
    names = ("OTEL_EXPORTER_OTLP_TIMEOUT", f"OTEL_EXPORTER_OTLP_{signal}_TIMEOUT")
    return None if any(map(os.environ.get, names)) else SECONDS


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
