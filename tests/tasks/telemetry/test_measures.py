"""What flows count, and what their log lines know."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from opentelemetry.trace import use_span
from prefect import flow, task
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.logging.handlers import APILogHandler

from tasks.telemetry import logs, measures
from tasks.ui.signals import RUN_NUMBER
from tests.support.measured import Measured, measuring


@pytest.fixture
def measured() -> Iterator[Measured]:
    with measuring() as measured:
        yield measured


def test_numbers_have_flow_and_campaign(prefect_server: None, measured: Measured) -> None:
    @flow(name="refreshing")
    def refreshing(campaign_id: str) -> None:
        measures.count_rows({"accepted": 3, "held out": 1})
        measures.count_segments({"new": 2})
        measures.count_flow_run("campaign-refresh", "completed")
        measures.record_step("upload", 1.5)

    refreshing("C")
    where = ("flow", "campaign")
    assert measured.sums("nudgeflow.rows", "outcome", *where) == {
        ("accepted", "refreshing", "C"): 3,
        ("held_out", "refreshing", "C"): 1,
    }
    assert measured.sums("nudgeflow.segments", "state", *where) == {("new", "refreshing", "C"): 2}
    assert measured.sums("nudgeflow.step.duration", "step", *where) == {
        ("upload", "refreshing", "C"): 1
    }
    ended = measured.sums("nudgeflow.flow_runs", "outcome", *where)
    assert ended == {("completed", "campaign-refresh", "C"): 1}


def test_nothing_is_counted_before_it_is_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "_instruments", None)
    measures.count_rows({"accepted": 1})
    measures.count_segments({"new": 1})
    measures.count_flow_run("plan-refresh", "completed")
    measures.record_step("upload", 1)


def test_spans_know_their_flow_run_and_name_the_one_around(
    prefect_server: None, measured: Measured
) -> None:
    tracer = measured.tracers.get_tracer("tests")
    around = tracer.start_span("flow")

    @flow
    def refreshing(campaign_id: str) -> str:
        context = FlowRunContext.get()
        assert context
        assert context.flow_run
        context.flow_run.labels[RUN_NUMBER] = 7
        with use_span(around):
            tracer.start_span("call").end()
        return str(context.flow_run.id)

    flow_run = refreshing("C")
    around.end()
    names = {
        "nudgeflow.campaign.id": "C",
        "nudgeflow.flow_run.id": flow_run,
        "nudgeflow.run.number": 7,
    }
    assert {span.name: dict(span.attributes or {}) for span in measured.spans()} == {
        "call": names,
        "flow": names,
    }


@dataclass
class Lines:
    """What Prefect's handlers would send, and the fields of its records."""

    texts: list[str] = field(default_factory=list)
    fields: list[tuple[object, object]] = field(default_factory=list)


@pytest.fixture
def lines(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> Lines:
    """Of flow and task runs, whose names are in texts, too."""
    lines = Lines()

    def emit(handler: APILogHandler, record: logging.LogRecord) -> None:
        lines.texts.append(handler.format(record))
        lines.fields.append((vars(record)["campaign_id"], vars(record)["run_number"]))
        handler.setFormatter(None)

    monkeypatch.setattr(APILogHandler, "emit", emit)
    for name in logs.LOGGERS:
        monkeypatch.setattr(logging.getLogger(name), "filters", [])
        monkeypatch.setattr(logging.getLogger(name), "disabled", False)  # as tests may leave it
    logs.name_runs(in_texts=True)
    return lines


def test_lines_of_flow_and_task_runs_know_campaign_and_run(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MOST_KNOWN", 0)

    @task
    def fetch() -> None:
        get_run_logger().info("fetched")

    @flow
    def exporting(campaign_id: str, run: int | None = None) -> None:
        get_run_logger().info("begun")
        fetch()

    exporting("C")
    exporting("D", 2)
    assert {"begun [campaign C]", "fetched [campaign C]"} <= {*lines.texts}
    assert {"begun [campaign D, run 2]", "fetched [campaign D, run 2]"} <= {*lines.texts}
    assert "Finished in state Completed() [campaign D, run 2]" in lines.texts
    assert {("C", None), ("D", 2)} <= {*lines.fields}


def test_line_of_a_flow_without_a_campaign_stays_as_it_is(lines: Lines) -> None:
    @flow
    def looking(run: str = "latest") -> None:
        get_run_logger().info("looked")

    looking()
    assert "looked" in lines.texts
    assert {*lines.fields} == {(None, None)}
