import dataclasses
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prefect.exceptions import TerminationSignal
from pydantic import ValidationError

from blocks.crm.saas.salesforce import SalesforceCrm
from nudgescribe.retry import PollPolicy, RetryPolicy
from tests.blocks.crm.extracting import CANARY, Extract, Refusal
from tests.blocks.crm.saas import salesforce_server
from tests.blocks.crm.saas.salesforce_server import JOBS, QUERY, Salesforce, error, page
from tests.support.clock import Clock
from tests.support.http_server import DROPPED, Reply, as_json, serving

COLUMNS = ["Id", "Name", "Note__c"]
LOOK = "IAA"
Crm = Callable[..., SalesforceCrm]


@pytest.fixture
def service() -> Iterator[Salesforce]:
    with serving(Salesforce()) as service:
        yield service


@pytest.fixture
def crm(service: Salesforce, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Crm:
    monkeypatch.setattr(SalesforceCrm, "retry", RetryPolicy(sleep=clock.sleep))
    monkeypatch.setattr(SalesforceCrm, "poll_policy", clock.poll_policy(tolerated=3))

    def make(**changes: Any) -> SalesforceCrm:
        values = {
            "client_id": salesforce_server.CLIENT_ID,
            "client_secret": salesforce_server.CLIENT_SECRET,
            "query": QUERY,
        }
        return SalesforceCrm.model_validate({"login_url": service.url, **values, **changes})

    return make


def numbered(count: int) -> list[list[str]]:
    return [[f"003{each:015d}", f"Name {each}", ""] for each in range(count)]


def test_extract_keeps_values_of_query(service: Salesforce, extract: Extract) -> None:
    service.rows = [["000123", 'A "b", c\r\nd', "\ufeffé"], ["NA", "", "line\nline\r"]]
    found = extract()
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


def test_extract_reads_all_pages_while_tokens_expire(service: Salesforce, extract: Extract) -> None:
    service.rows = numbered(1001)
    service.uses = 3
    assert extract(page_rows=100)["Id"].to_list() == [row[0] for row in service.rows]
    assert service.count("/results") >= 11
    assert len(service.tokens) > 3
    assert len(service.queries) == 1


def test_extract_reads_page_larger_than_a_block(service: Salesforce, extract: Extract) -> None:
    service.rows = [[str(each), "x" * 10_000, '"\r\n' * 10] for each in range(1000)]
    found = extract()
    assert found["Id"].to_list() == [row[0] for row in service.rows]
    assert found["Note__c"].unique().to_list() == ['"\r\n' * 10]


def test_numbers_are_written_without_exponent_and_texts_as_they_are(
    service: Salesforce, extract: Extract
) -> None:
    def field(name: str, kind: str, **more: object) -> dict[str, Any]:
        return {"name": name, "type": kind, "referenceTo": [], "relationshipName": None, **more}

    service.fields["Contact"] = [
        field("Phone__c", "double"),
        field("Note__c", "string"),
        field("AccountId", "reference", referenceTo=["Account"], relationshipName="Account"),
    ]
    service.fields["Account"] = [field("AnnualRevenue", "currency")]
    service.columns = ["Phone__c", "Note__c", "Account.AnnualRevenue"]
    service.rows = [["1.6147805824397E13", "8.0E7", "8.0E7"], ["5.0", "5.0", "-0.25"], [""] * 3]
    assert extract().rows() == [
        ("16147805824397", "8.0E7", "80000000"),
        ("5", "5.0", "-0.25"),
        (None, None, None),
    ]
    assert service.count("/describe") == 2


VALUES = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('",\r\n'), max_size=6)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(VALUES, min_size=3, max_size=3), max_size=12), at_once=st.integers(1, 9)
)
def test_extract_keeps_any_value(
    service: Salesforce, extract: Extract, rows: list[list[str]], at_once: int
) -> None:
    service.rows = rows
    expected = [tuple(value or None for value in row) for row in rows]
    assert extract(page_rows=at_once).rows() == expected
    assert service.jobs == {}


def test_empty_result_has_its_columns(service: Salesforce, extract: Extract) -> None:
    assert extract().schema == dict.fromkeys(COLUMNS, pl.String())


def test_extract_survives_temporary_faults(
    service: Salesforce, extract: Extract, clock: Clock
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
    assert extract(page_rows=100)["Id"].to_list() == [row[0] for row in service.rows]
    assert max(clock.slept) == 66
    assert len(service.deleted) == 1


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (
            page(COLUMNS, numbered(2), **{"Sforce-NumberOfRecords": "3"}),
            "has 2 rows, not the number",
        ),
        (Reply(200, CANARY.encode() * 2 + b'\n"'), "cut off or no CSV"),
        (Reply(503, CANARY.encode()), "answered 503 on the results of query job"),
        (DROPPED, "no answer on the results of query job 750R0000000zxn0IAA: RemoteProtocolError"),
    ],
)
def test_extract_is_unavailable_when_page_stays_broken(
    service: Salesforce, delay: Refusal, fault: Reply, problem: str
) -> None:
    service.rows = numbered(3)
    service.faults["/results"] = [fault] * 5
    assert problem in delay()
    assert service.count("/results") == 5
    assert service.jobs == {}


def test_extract_is_unavailable_when_rows_are_missing(service: Salesforce, delay: Refusal) -> None:
    service.rows = numbered(3)
    service.faults["/results"] = [page(COLUMNS, numbered(2))]
    assert "gave 2 rows where 3 were announced" in delay()


@pytest.mark.parametrize("fault", [DROPPED, Reply(500)])
def test_extract_does_not_repeat_start_of_query(
    service: Salesforce, delay: Refusal, fault: Reply
) -> None:
    service.faults[f"POST {JOBS}"] = [fault]
    assert "on the query" in delay()
    assert service.count(f"POST {JOBS}") == 1


@pytest.mark.parametrize(
    ("state", "message", "problem"),
    [
        (
            "Failed",
            f"INVALID_FIELD: WHERE Email = '{CANARY}' ^ ERROR at Row:1:Column:11 No such column",
            "ended as Failed: INVALID_FIELD at row 1, column 11 of the query.",
        ),
        ("Failed", f"{CANARY}: is not known", "ended as Failed."),
        ("Failed", "", "ended as Failed."),
        ("Aborted", "", "ended as Aborted"),
    ],
)
def test_failed_query_is_told_without_its_values(
    service: Salesforce, refusal: Refusal, state: str, message: str, problem: str
) -> None:
    service.states = ["InProgress", state]
    service.error_message = message
    assert problem in refusal()
    assert service.jobs == {}


def test_extract_aborts_query_at_the_deadline(
    service: Salesforce, refusal: Refusal, clock: Clock
) -> None:
    service.states = ["UploadComplete", "InProgress"]
    message = refusal(deadline_minutes=2.5)
    assert "not complete after 2.5 minutes, last seen: InProgress" in message
    assert 150 <= clock.now < 170
    assert service.count("PATCH " + JOBS + "/750R0000000zxn0IAA") == 1
    assert service.jobs == {}


@pytest.mark.parametrize("signal", [KeyboardInterrupt, TerminationSignal])
@pytest.mark.parametrize("states", [["InProgress"], ["JobComplete"]])
def test_extract_aborts_and_deletes_query_when_cancelled(
    service: Salesforce,
    extract: Extract,
    monkeypatch: pytest.MonkeyPatch,
    signal: type[BaseException],
    states: list[str],
) -> None:
    cancelled = Mock(side_effect=signal(15))
    service.states = states
    service.rows = numbered(3)
    monkeypatch.setattr(SalesforceCrm, "poll_policy", PollPolicy(sleep=cancelled))
    monkeypatch.setattr(SalesforceCrm, "retry", RetryPolicy(sleep=cancelled))
    service.faults["/results"] = [DROPPED]
    with pytest.raises(signal):
        extract()
    assert service.jobs == {}
    assert len(service.deleted) == 1


def test_extract_warns_when_results_cannot_be_deleted(
    service: Salesforce, extract: Extract, logged: pytest.LogCaptureFixture
) -> None:
    service.rows = numbered(3)
    service.faults["DELETE " + JOBS + "/750R0000000zxn0IAA"] = [error(400, "API_ERROR")]
    assert extract().height == 3
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
        ("/token", as_json({"access_token": "no good", "instance_url": ""}), "access_token (strin"),
    ],
)
def test_extract_says_why_call_was_refused(
    service: Salesforce, refusal: Refusal, ending: str, fault: Reply, problem: str
) -> None:
    service.faults[ending] = [fault]
    assert problem in refusal()


def test_extract_fails_when_new_token_is_refused_too(service: Salesforce, refusal: Refusal) -> None:
    service.uses = 0
    assert "refuses access to the query: 401 INVALID_SESSION_ID" in refusal()
    assert len(service.tokens) == 2


def test_extract_fails_when_credentials_are_wrong(refusal: Refusal) -> None:
    message = refusal(client_secret="another-secret")
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
    service: Salesforce, refusal: Refusal, instance: str
) -> None:
    service.instance = instance
    assert "Salesforce names" in refusal()


@pytest.mark.parametrize(
    ("faults", "problem"),
    [
        ([None, page(["Id", "Name", CANARY], numbered(1))], "differ in their columns"),
        ([page(COLUMNS, [], "MQ==")] * 2, "lead in a circle"),
    ],
)
def test_extract_refuses_pages_that_do_not_follow(
    service: Salesforce, refusal: Refusal, faults: list[Reply | None], problem: str
) -> None:
    service.rows = numbered(3)
    service.faults["/results"] = faults
    assert problem in refusal(page_rows=2)


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
    service: Salesforce, crm: Crm, delay: Refusal, logged: pytest.LogCaptureFixture
) -> None:
    service.rows = [["1", CANARY, CANARY]] * 3
    service.uses = 2
    service.faults["/results"] = [Reply(500, CANARY.encode()), page(COLUMNS, [[CANARY] * 3])]
    seen = delay() + logged.text + repr(crm())
    assert "Query job 750R0000000zxn0IAA: InProgress" in seen
    assert salesforce_server.CLIENT_SECRET not in seen
    assert "canary.token" not in seen
    assert CANARY not in seen.replace(QUERY, "")
