"""Which providers are set, and how they end."""

import atexit
import logging
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from nudgescribe import telemetry
from tasks.telemetry import measures, providers, start, wanted

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class World:
    """Takes the place of what is global in a process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tracers: Any = trace.ProxyTracerProvider()
        self.meters: Any = None
        self.at_exit: list[Callable[[], object]] = []
        monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: self.tracers)
        monkeypatch.setattr(trace, "set_tracer_provider", self.set_tracers)
        monkeypatch.setattr(metrics, "set_meter_provider", self.set_meters)
        monkeypatch.setattr(atexit, "register", self.at_exit.append)
        for module in (telemetry, measures):
            monkeypatch.setattr(module, "_instruments", None)

    def set_tracers(self, tracers: TracerProvider) -> None:
        self.tracers = tracers

    def set_meters(self, meters: MeterProvider) -> None:
        self.meters = meters

    def end(self) -> None:
        while self.at_exit:
            self.at_exit.pop()()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_providers_of_both_signals_are_set_and_closed(world: World) -> None:
    providers.set_providers({"TRACES", "METRICS"})
    resource: Resource = world.tracers.resource
    assert resource.attributes["service.name"] == "nudgeflow"
    assert isinstance(world.meters, MeterProvider)
    assert telemetry._instruments is not None
    assert len(world.at_exit) == 2
    world.end()


def test_provider_of_one_signal_leaves_the_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "refreshes")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    providers.set_providers({"TRACES"})
    assert world.tracers.resource.attributes["service.name"] == "refreshes"
    assert world.meters is None
    world.end()


def test_providers_of_the_program_stay(world: World) -> None:
    world.tracers = theirs = TracerProvider(shutdown_on_exit=False)
    providers.set_providers({"TRACES", "METRICS"})
    assert (world.tracers, world.meters, world.at_exit) == (theirs, None, [])
    assert telemetry._instruments is not None


@pytest.mark.parametrize(
    ("variables", "signals"),
    [
        ({}, {"TRACES", "METRICS"}),
        ({ENDPOINT: " "}, {"TRACES", "METRICS"}),
        ({ENDPOINT: ""}, set[str]()),
        ({ENDPOINT: "", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x"}, {"METRICS"}),
        ({"OTEL_TRACES_EXPORTER": "none"}, {"METRICS"}),
        ({"OTEL_SDK_DISABLED": "TRUE"}, set[str]()),
    ],
)
def test_signals_are_those_that_have_a_receiver(
    world: World, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], signals: set[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wanted() == signals


@pytest.mark.parametrize("problem", ["missing", "refused"])
def test_start_tells_in_the_log_why_nothing_is_sent(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    problem: str,
) -> None:
    def refuse(signals: set[str]) -> None:
        raise ValueError("secret")

    monkeypatch.setattr(providers, "set_providers", refuse)
    monkeypatch.setattr("tasks.telemetry.is_installed", lambda extra: problem != "missing")
    monkeypatch.setattr("tasks.telemetry.name_runs", lambda in_texts: None)
    with caplog.at_level(logging.WARNING):
        start.__wrapped__()
    (told,) = [record.getMessage() for record in caplog.records if "sent" in record.getMessage()]
    assert ("nudgeflow[otel]" in told) == (problem == "missing")
    assert "secret" not in told


def test_failures_to_send_are_told_once_without_the_receiver(
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = "tests.exporter"
    providers._tell_failures_once(name)
    with caplog.at_level(logging.DEBUG):
        for level in (logging.DEBUG, logging.ERROR, logging.WARNING):
            logging.getLogger(name).log(level, "Trouble with %s", "http://receiver.example")
    texts = [record.getMessage() for record in caplog.records if record.name == name]
    assert texts == [
        "Trouble with http://receiver.example",
        "Telemetry is not received; flows go on without it.",
    ]
