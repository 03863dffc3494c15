"""Traces, metrics and log lines of a refresh in a process of its own, sent to a receiver here."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from secrets import token_hex

import polars as pl
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.proto.trace.v1.trace_pb2 import Status as SpanStatus
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, Log

from flows.refresh import campaign_refresh
from nudgescribe import contract
from nudgescribe.telemetry import LINK
from sandbox import seed
from tests.conftest import SEEDED_CUSTOMERS, Company, Sandbox, Saved, customers, saved
from tests.support.clock import until
from tests.support.deployed import GUARDRAILS, flow_run, on_pool, state_of
from tests.support.http_server import serving
from tests.support.otlp import METRICS, TRACES, Receiver, attributes_of, run_python

LISTED, INVALID_EVERY = 250, 50
LOOSE = {**GUARDRAILS, "max_rejected": 1}
MARK = f"canary{token_hex(8)}"


def listed() -> pl.DataFrame:
    """Customers whose identifiers and names nobody else has."""
    return customers(LISTED, invalid_every=INVALID_EVERY).with_columns(
        customer_id=pl.lit(f"{MARK}-") + pl.col("customer_id"),
        first_name=pl.lit(f"{MARK} first"),
    )


@dataclass(frozen=True)
class Told:
    """A refresh, and what was received of it."""

    company: Company
    saved: Saved
    flow_run: FlowRun
    receiver: Receiver
    printed: str

    @property
    def campaign_id(self) -> str:
        return self.company.seeded.campaign_id

    def span(self, kind: str, name: str) -> Span:
        (found,) = (
            span
            for span in self.receiver.spans()
            if attributes_of(span.attributes).get("prefect.run.type") == kind
            and span.name.startswith(name)
        )
        return found


@pytest.fixture(scope="module")
def told(
    reviewed_sandbox: Sandbox, prefect_server: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Told]:
    company = Company(reviewed_sandbox, seed.seed(reviewed_sandbox.context, SEEDED_CUSTOMERS))
    blocks = saved(company, listed(), tmp_path_factory.mktemp("telemetry"))
    # The first call for a page's link fails, and is repeated.
    fault = {"endpoint": contract.MESSAGES_FETCH, "status": 503, "times": 1}
    company.sandbox.fault(**fault)
    with serving(Receiver()) as receiver:
        run = on_pool(campaign_refresh, "telemetry").refresh(company, blocks, guardrails=LOOSE)
        done = run_python(
            *("-m", "prefect.engine", str(run)),  # which a worker starts
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER="json",
            PREFECT_LOGGING_ROOT_LEVEL="INFO",
        )
        company.sandbox.no_faults()
        assert state_of(run).is_completed(), done.stderr
        yield Told(company, blocks, flow_run(run), receiver, done.stderr)


def test_trace_leads_from_the_flow_run_by_its_tasks_to_calls(told: Told) -> None:
    spans = told.receiver.spans()
    assert len({span.trace_id for span in spans}) == 1
    flow = told.span("flow", "refresh-")
    assert not flow.parent_span_id
    about = attributes_of(flow.attributes)
    assert about["prefect.run.id"] == str(told.flow_run.id)
    assert about["nudgeflow.campaign.id"] == told.campaign_id
    task = told.span("task", "pages-0-2")
    assert task.parent_span_id == flow.span_id
    of_task = attributes_of(task.attributes)
    assert of_task["nudgeflow.flow_run.id"] == str(told.flow_run.id)
    assert of_task["nudgeflow.run.number"] == 2
    calls = [span for span in spans if span.parent_span_id == task.span_id]
    assert Counter(span.name for span in calls)[f"GET {LINK}"] == 3
    ids = {span.span_id for span in spans}
    assert [span.name for span in spans if span != flow and span.parent_span_id not in ids] == []
    for span in calls:
        assert (
            attributes_of(span.attributes).items()
            >= {
                "nudgeflow.campaign.id": told.campaign_id,
                "nudgeflow.flow_run.id": str(told.flow_run.id),
                "url.template": span.name.partition(" ")[2],
            }.items()
        )


def test_call_that_failed_has_its_status_in_span_and_metric(told: Told) -> None:
    failed = [
        span
        for span in told.receiver.spans()
        if span.kind == Span.SpanKind.SPAN_KIND_CLIENT
        and span.status.code == SpanStatus.StatusCode.STATUS_CODE_ERROR
    ]
    (about,) = [attributes_of(span.attributes) for span in failed]
    assert (about["url.template"], about["http.response.status_code"]) == (
        contract.MESSAGES_FETCH,
        503,
    )
    assert not failed[0].status.message
    labels = ("url.template", "http.request.method", "http.response.status_code")
    calls = told.receiver.by("nudgeflow.call.duration", *labels)
    assert calls[contract.MESSAGES_FETCH, "POST", 503] == 1
    assert calls[contract.MESSAGES_FETCH, "POST", 200] >= 3
    assert calls[contract.RERUN_INITIATE, "POST", 200] == 1
    assert calls[LINK, "GET", 200] == 3
    assert told.receiver.points("nudgeflow.wait")[0].attributes == {"reason": "retry"}


def test_metrics_have_the_numbers_of_the_refresh(told: Told) -> None:
    receiver = told.receiver
    (row,) = told.saved.lake.sync_runs().to_dicts()
    rejected = LISTED // INVALID_EVERY
    assert (row["rejected"], row["accepted"]) == (rejected, LISTED - rejected)
    where = {"flow": "campaign-refresh", "campaign": told.campaign_id}
    assert receiver.by("nudgeflow.rows", "outcome") == {
        "accepted": row["accepted"],
        "rejected": rejected,
        "suppressed": 0,
        "erased": 0,
        "held_out": 0,
    }
    assert receiver.by("nudgeflow.segments", "state") == {
        state: row[state] for state in ("matched", "new", "orphaned")
    }
    (ended,) = receiver.points("nudgeflow.flow_runs")
    assert (ended.attributes, ended.value) == ({**where, "outcome": "completed"}, 1)
    steps = receiver.by("nudgeflow.step.duration", "step")
    assert {"extract and validate", "upload", "rerun", "publish and fetch"} <= steps.keys()
    assert set(steps.values()) == {1}
    for metric in ("rows", "segments", "step.duration"):
        for point in receiver.points(f"nudgeflow.{metric}"):
            assert point.attributes.items() >= where.items()
    pages = told.company.page_file().parent.parent / "run-2"
    size = sum(page.stat().st_size for page in pages.iterdir())
    (downloaded,) = receiver.points("nudgeflow.download")
    assert (downloaded.attributes, downloaded.value) == ({"way": "link"}, size)


def test_process_tells_who_it_is(told: Told) -> None:
    for resource in told.receiver.resources():
        assert resource["service.name"] == "nudgeflow"
        assert re.fullmatch("[0-9a-f-]{36}", resource["service.instance.id"])


def test_nothing_of_customers_and_no_secret_is_sent(told: Told) -> None:
    received, seeded = told.receiver.received, told.company.seeded
    assert {request.path for request in told.receiver.requests} == {TRACES, METRICS}
    assert told.campaign_id.encode() in received  # so that a value would be found
    for value in (MARK, seeded.password, seeded.api_key, seeded.api_code, seeded.email):
        assert value.encode() not in received
    assert seeded.profile_key
    assert seeded.profile_key.encode() not in received
    assert b"eyJ" not in received  # how a token begins
    assert told.company.sandbox.url.partition("//")[2].encode() not in received
    messages = told.saved.lake.read(told.campaign_id, 2, "polars")["message"]
    assert not [text for text in messages if text.encode() in received]
    assert "listed" not in received.decode(errors="replace")


def logs(told: Told) -> list[Log]:
    mine = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[told.flow_run.id]))
    with get_client(sync_client=True) as client:
        found = partial(client.read_logs, mine, limit=200)
        until(lambda: any("Finished in state" in log.message for log in found()))
        return found()


def test_lines_on_prefects_server_end_with_campaign_and_run(told: Told) -> None:
    lines = [log.message for log in logs(told)]
    both = f"[campaign {told.campaign_id}, run 2]"
    assert [line for line in lines if "Accepted" in line and told.campaign_id in line]
    assert [line for line in lines if "messages in" in line and line.endswith(both)]
    assert [line for line in lines if "Finished in state" in line and line.endswith(both)]


def test_json_lines_have_campaign_run_and_flow_run(told: Told) -> None:
    lines = [json.loads(line) for line in told.printed.splitlines() if line.startswith("{")]
    (fetched,) = (line for line in lines if line["msg"] == "%s messages in %s")
    fields = ("campaign_id", "run_number", "flow_run_id")
    assert [fetched[name] for name in fields] == [told.campaign_id, 2, str(told.flow_run.id)]
    assert "[campaign" not in fetched["message"]
    (accepted,) = (line for line in lines if line["msg"] == "Accepted %s rows, %s")
    assert (accepted["campaign_id"], accepted["run_number"]) == (told.campaign_id, None)
