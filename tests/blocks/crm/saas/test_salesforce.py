import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prefect.exceptions import TerminationSignal
from pydantic import ValidationError

from blocks.crm.saas.salesforce import SalesforceCrm
from blocks.crm.source import SourceUnavailable
from nudgescribe.retry import Pace, RetryPolicy
from tests.blocks.crm.extracting import CANARY, refused
from tests.blocks.crm.saas.salesforce_server import (
    CLIENT_ID,
    CLIENT_SECRET,
    JOBS,
    QUERY,
    Salesforce,
    error,
    page,
)
from tests.support.clock import Clock
from tests.support.http_server import DROPPED, Reply, as_json, serving

COLUMNS = ["Id", "Name", "Note__c"]
LOOK = "IAA"
Crm = Callable[..., SalesforceCrm]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service() -> Iterator[Salesforce]:
    with serving(Salesforce()) as service:
        yield service


@pytest.fixture
def crm(service: Salesforce, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Crm:
    monkeypatch.setattr(SalesforceCrm, "retry", RetryPolicy(sleep=clock.sleep))
    monkeypatch.setattr(SalesforceCrm, "pace", clock.pace(tolerated=3))

    def make(**changes: Any) -> SalesforceCrm:
        values = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "query": QUERY}
        return SalesforceCrm.model_validate({"login_url": service.url, **values, **changes})

    return make


def numbered(count: int) -> list[list[str]]:
    return [[f"003{each:015d}", f"Name {each}", ""] for each in range(count)]


def test_extract_keeps_values_of_query(service: Salesforce, crm: Crm, target: Path) -> None:
    service.rows = [
        ["000123", 'A "b", c\r\nd', "\ufeffé"],
        ["NA", "", "line\nline\r"],
    ]
    assert crm().extract(target) == 2
    found = pl.read_parquet(target)
    assert found.schema == dict.fromkeys(COLUMNS, pl.String())
    assert found.rows() == [("000123", 'A "b", c\r\nd', "\ufeffé"), ("NA", None, "line\nline\r")]
    assert service.queries == [
        {
            "operation": "query",
            "query": QUERY,
            "contentType": "CSV",
            "columnDelimiter": "COMMA",
            "lineEnding": "LF",
        }
    ]
    assert service.jobs == {}
    assert len(service.deleted) == 1


def test_extract_reads_all_pages_while_tokens_expire(
    service: Salesforce, crm: Crm, target: Path
) -> None:
    service.rows = numbered(1001)
    service.uses = 3
    assert crm(page_rows=100).extract(target) == 1001
    found = pl.read_parquet(target)
    assert found["Id"].to_list() == [row[0] for row in service.rows]
    assert service.count("/results") >= 11
    assert len(service.tokens) > 3
    assert len(service.queries) == 1


def test_extract_reads_page_larger_than_a_block(
    service: Salesforce, crm: Crm, target: Path
) -> None:
    service.rows = [[str(each), "x" * 1000, '"\r\n' * 10] for each in range(20_000)]
    assert crm().extract(target) == 20_000
    found = pl.read_parquet(target)
    assert found["Id"].to_list() == [row[0] for row in service.rows]
    assert found["Note__c"].unique().to_list() == ['"\r\n' * 10]


VALUES = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('",\r\n'), max_size=6)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(VALUES, min_size=3, max_size=3), max_size=12), at_once=st.integers(1, 9)
)
def test_extract_keeps_any_value(
    service: Salesforce, crm: Crm, target: Path, rows: list[list[str]], at_once: int
) -> None:
    service.rows = rows
    assert crm(page_rows=at_once).extract(target) == len(rows)
    expected = [tuple(value or None for value in row) for row in rows]
    assert pl.read_parquet(target).rows() == expected
    assert service.jobs == {}


def test_empty_result_has_its_columns(service: Salesforce, crm: Crm, target: Path) -> None:
    assert crm().extract(target) == 0
    assert pl.read_parquet(target).schema == dict.fromkeys(COLUMNS, pl.String())


def test_extract_survives_temporary_faults(
    service: Salesforce, crm: Crm, clock: Clock, target: Path
) -> None:
    service.rows = numbered(250)
    whole = page(COLUMNS, service.rows[:100])
    fewer = page(COLUMNS, service.rows[:99], **{"Sforce-NumberOfRecords": "100"})
    longer = page(COLUMNS, service.rows[:150], **{"Sforce-NumberOfRecords": "100"})
    open_quote = dataclasses.replace(whole, body=whole.body[:-5])
    service.faults["/token"] = [Reply(503), DROPPED]
    service.faults[LOOK] = [Reply(500), DROPPED, Reply(200, b"<html>")]
    service.faults["/results"] = [
        DROPPED,
        dataclasses.replace(whole, cut_off=700),
        open_quote,
        fewer,
        None,
        Reply(429, headers={"retry-after": "66"}),
        Reply(204),
        longer,
    ]
    assert crm(page_rows=100).extract(target) == 250
    assert pl.read_parquet(target)["Id"].to_list() == [row[0] for row in service.rows]
    assert max(clock.slept) == 66
    assert len(service.deleted) == 1


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (page(COLUMNS, numbered(2), **{"Sforce-NumberOfRecords": "3"}), "has 2 rows, not those"),
        (Reply(200, CANARY.encode() * 2 + b'\n"'), "no whole CSV"),
        (Reply(503, CANARY.encode()), "answered 503 on the results of query job"),
        (DROPPED, "no answer on the results of query job 750R0000000zxn0IAA: RemoteProtocolError"),
    ],
)
def test_extract_is_unavailable_when_page_stays_broken(
    service: Salesforce, crm: Crm, target: Path, fault: Reply, problem: str
) -> None:
    service.rows = numbered(3)
    service.faults["/results"] = [fault] * 5
    with pytest.raises(SourceUnavailable, match=problem) as caught:
        crm().extract(target)
    assert CANARY not in str(caught.value)
    assert service.count("/results") == 5
    assert service.jobs == {}


def test_extract_is_unavailable_when_rows_are_missing(
    service: Salesforce, crm: Crm, target: Path
) -> None:
    service.rows = numbered(3)
    service.faults["/results"] = [page(COLUMNS, numbered(2))]
    with pytest.raises(SourceUnavailable, match="gave 2 rows where 3 were announced"):
        crm().extract(target)


@pytest.mark.parametrize("fault", [DROPPED, Reply(500)])
def test_extract_does_not_repeat_start_of_query(
    service: Salesforce, crm: Crm, target: Path, fault: Reply
) -> None:
    service.faults[f"POST {JOBS}"] = [fault]
    with pytest.raises(SourceUnavailable, match="on the query"):
        crm().extract(target)
    assert service.count(f"POST {JOBS}") == 1


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (
            f"INVALID_FIELD: WHERE Email = '{CANARY}' ^ ERROR at Row:1:Column:11 No such column",
            "ended as Failed: INVALID_FIELD at row 1, column 11 of the query.",
        ),
        (f"{CANARY}: is not known", "ended as Failed."),
        ("", "ended as Failed."),
    ],
)
def test_failed_query_is_told_without_its_values(
    service: Salesforce, crm: Crm, target: Path, message: str, problem: str
) -> None:
    service.states = ["InProgress", "Failed"]
    service.error_message = message
    assert problem in refused(crm(), target)
    assert service.jobs == {}


def test_extract_fails_when_query_was_aborted(service: Salesforce, crm: Crm, target: Path) -> None:
    service.states = ["InProgress", "Aborted"]
    assert "ended as Aborted" in refused(crm(), target)


def test_extract_aborts_query_at_the_deadline(
    service: Salesforce, crm: Crm, clock: Clock, target: Path
) -> None:
    service.states = ["UploadComplete", "InProgress"]
    message = refused(crm(deadline_minutes=2.5), target)
    assert "not complete after 2.5 minutes, last seen: InProgress" in message
    assert 150 <= clock.now < 170
    assert service.count("PATCH " + JOBS + "/750R0000000zxn0IAA") == 1
    assert service.jobs == {}


@pytest.mark.parametrize("signal", [KeyboardInterrupt, TerminationSignal])
@pytest.mark.parametrize("states", [["InProgress"], ["JobComplete"]])
def test_extract_aborts_and_deletes_query_when_cancelled(
    service: Salesforce,
    crm: Crm,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    signal: type[BaseException],
    states: list[str],
) -> None:
    def cancelled(seconds: float) -> None:
        raise signal(15)

    service.states = states
    service.rows = numbered(3)
    monkeypatch.setattr(SalesforceCrm, "pace", Pace(sleep=cancelled))
    monkeypatch.setattr(SalesforceCrm, "retry", RetryPolicy(sleep=cancelled))
    service.faults["/results"] = [DROPPED]
    with pytest.raises(signal):
        crm().extract(target)
    assert service.jobs == {}
    assert len(service.deleted) == 1


def test_extract_warns_when_results_cannot_be_deleted(
    service: Salesforce, crm: Crm, target: Path, logged: pytest.LogCaptureFixture
) -> None:
    service.rows = numbered(3)
    service.faults["DELETE " + JOBS + "/750R0000000zxn0IAA"] = [error(400, "API_ERROR")]
    assert crm().extract(target) == 3
    assert "keeps the results of query job 750R0000000zxn0IAA for a week" in logged.text
    assert "API_ERROR" in logged.text


@pytest.mark.parametrize(
    ("ending", "fault", "problem"),
    [
        (JOBS, error(400, "MALFORMED_QUERY"), "answered 400 MALFORMED_QUERY on the query"),
        (JOBS, error(403, "REQUEST_LIMIT_EXCEEDED"), "requests of these 24 hours are used up"),
        (JOBS, error(403, "API_DISABLED_FOR_ORG"), "refuses access to the query: 403 API_DISAB"),
        (JOBS, as_json({"id": "../../x", "state": "InProgress"}), "id (string_pattern_mismatch)"),
        ("/results", error(404, "NOT_FOUND"), "does not know the results of query job 750R"),
        (
            "/token",
            as_json({"access_token": "no good", "instance_url": ""}),
            "access_token (string",
        ),
    ],
)
def test_extract_says_why_call_was_refused(
    service: Salesforce, crm: Crm, target: Path, ending: str, fault: Reply, problem: str
) -> None:
    service.faults[ending] = [fault]
    assert problem in refused(crm(), target)


def test_extract_fails_when_new_token_is_refused_too(
    service: Salesforce, crm: Crm, target: Path
) -> None:
    service.uses = 0
    message = refused(crm(), target)
    assert "refuses access to the query: 401 INVALID_SESSION_ID" in message
    assert len(service.tokens) == 2


def test_extract_fails_when_credentials_are_wrong(
    service: Salesforce, crm: Crm, target: Path
) -> None:
    message = refused(crm(client_secret="another-secret"), target)
    assert "answered 400 invalid_client on the sign-in" in message
    assert "another-secret" not in message


@pytest.mark.parametrize(
    "instance",
    [
        "https://evil.example",
        "https://salesforce.com.evil.example",
        "https://evilsalesforce.com",
        "http://acme.my.salesforce.com",
        "https://x:port",
        "not a place",
    ],
)
def test_token_is_sent_only_to_salesforce(
    service: Salesforce, crm: Crm, target: Path, instance: str
) -> None:
    service.instance = instance
    assert "Salesforce names" in refused(crm(), target)


def test_extract_refuses_pages_with_other_columns(
    service: Salesforce, crm: Crm, target: Path
) -> None:
    service.rows = numbered(3)
    service.faults["/results"] = [None, page(["Id", "Name", CANARY], numbered(1))]
    assert "differ in their columns" in refused(crm(page_rows=2), target)


def test_extract_refuses_pages_in_a_circle(service: Salesforce, crm: Crm, target: Path) -> None:
    service.rows = numbered(3)
    service.faults["/results"] = [page(COLUMNS, [], "MQ==")] * 2
    assert "lead in a circle" in refused(crm(), target)


@pytest.mark.parametrize(
    "changes",
    [
        {"login_url": "http://acme.my.salesforce.com"},
        {"api_version": "62"},
        {"deadline_minutes": 0},
        {"page_rows": 0},
    ],
)
def test_block_refuses_invalid_settings(crm: Crm, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        crm(**changes)


def test_logs_hold_no_secret_and_no_value(
    service: Salesforce, crm: Crm, target: Path, logged: pytest.LogCaptureFixture
) -> None:
    service.rows = [["1", CANARY, CANARY]] * 3
    service.uses = 2
    service.faults["/results"] = [Reply(500, CANARY.encode()), page(COLUMNS, [[CANARY] * 3])]
    with pytest.raises(SourceUnavailable) as caught:
        crm().extract(target)
    seen = logged.text + str(caught.value) + repr(crm())
    assert "Query job 750R0000000zxn0IAA: InProgress" in seen
    assert CLIENT_SECRET not in seen
    assert "canary.token" not in seen
    assert CANARY not in seen.replace(QUERY, "")
