import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prefect.exceptions import TerminationSignal
from pydantic import ValidationError

from blocks.crm.errors import SourceError
from blocks.crm.saas import http, hubspot
from blocks.crm.saas.hubspot import HubSpotCrm
from nudgescribe.retry import RetryPolicy
from tests.blocks.crm.extracting import CANARY, Extract, Refusal
from tests.blocks.crm.saas.hubspot_server import NOW, TOKEN, HubSpot
from tests.support.clock import Clock
from tests.support.http_server import DROPPED, Reply, as_json, serving

READ = "/contacts/batch/read"
MEMBERS = "/memberships"
NOTHING = as_json({"status": "COMPLETE", "results": []})
Crm = Callable[..., HubSpotCrm]


@pytest.fixture
def service(clock: Clock) -> Iterator[HubSpot]:
    with serving(HubSpot(lambda: clock.now)) as service:
        yield service


@pytest.fixture
def crm(service: HubSpot, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Crm:
    monkeypatch.setattr(HubSpotCrm, "retry", RetryPolicy(sleep=clock.sleep))

    def make(**changes: Any) -> HubSpotCrm:
        values = {"token": TOKEN, "list_id": "12", "properties": ["hs_object_id", "email"]}
        return HubSpotCrm.model_validate({**values, "base_url": service.url, **changes})

    return make


def numbered(count: int) -> list[dict[str, str | None]]:
    return [{"email": f"{each}@example.com"} for each in range(count)]


def test_extract_keeps_values_of_chosen_properties(service: HubSpot, extract: Extract) -> None:
    service.add(
        "12",
        {"email": CANARY, "note": '"a",\r\nb', "code": "000123", "other": "x"},
        {"email": None, "note": "", "code": "NA", "other": "y"},
        {"email": "\ufeffé", "note": None, "code": "1e5", "other": None},
    )
    service.add("13", {"email": "not@asked.for"})
    properties = ["note", "hs_object_id", "code", "email"]
    found = extract(properties=properties)
    assert found.schema == dict.fromkeys(properties, pl.String())
    assert found.rows() == [
        ('"a",\r\nb', "1000", "000123", CANARY),
        ("", "1007", "NA", None),
        (None, "1014", "1e5", "\ufeffé"),
    ]


def test_extract_keeps_rate_limits_when_list_is_long(
    service: HubSpot, extract: Extract, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred calls in ten seconds; each page repeats a member of the page before."""
    monkeypatch.setattr(hubspot, "BATCHES_AT_ONCE", 20)
    service.add("12", *numbered(12_345))
    found = extract()
    assert found["email"].to_list() == [values["email"] for values in numbered(12_345)]
    assert found["hs_object_id"].to_list() == sorted(service.contacts, key=int)
    assert all(seconds >= 10 for seconds in clock.slept)
    assert clock.slept
    assert len(service.requests) < 1.15 * (12_345 / 100 + 12_345 / 249)


def test_only_needed_properties_are_asked_for(service: HubSpot, crm: Crm, target: Path) -> None:
    service.add("12", *numbered(3))
    block = crm(properties=["email", "hs_object_id", "unknown"])
    assert block.extract(target, frozenset(["email"])) == 3
    assert pl.read_parquet(target).columns == ["email"]
    (asked,) = [json.loads(each.body) for each in service.requests if each.call.endswith(READ)]
    assert asked["properties"] == ["email"]


def test_list_without_a_needed_column_is_refused(service: HubSpot, crm: Crm, target: Path) -> None:
    service.add("12", *numbered(3))
    with pytest.raises(SourceError, match="The list has no column plan"):
        crm().extract(target, frozenset(["plan"]))


def test_members_are_as_many_as_are_announced(service: HubSpot, delay: Refusal) -> None:
    service.add("12", *numbered(3))
    page = {"results": [{"recordId": "1000", "membershipTimestamp": NOW}]}
    service.faults[MEMBERS] = [as_json({**page, "total": 3})]
    assert "gives 1 of the members of list 12, where it announces 3" in delay()


def test_empty_list_has_its_columns(service: HubSpot, extract: Extract) -> None:
    service.add("1", *numbered(1))
    service.add("12")
    assert extract().schema == {"hs_object_id": pl.String(), "email": pl.String()}


def test_extract_counts_members_that_no_longer_exist(
    service: HubSpot, extract: Extract, logged: pytest.LogCaptureFixture
) -> None:
    service.add("12", *numbered(250))
    for record in ("1000", "1007", "2743"):
        del service.contacts[record]
    found = extract()["email"]
    assert (found[0], len(found)) == ("2@example.com", 247)
    assert "3 members of list 12 no longer exist" in logged.text


def test_merged_contact_counts_as_gone(
    service: HubSpot, extract: Extract, logged: pytest.LogCaptureFixture
) -> None:
    service.add("12", *numbered(3))
    service.merged = {"1007": "2000"}
    service.contacts["2000"] = {"email": "survivor", "hs_object_id": "2000"}
    assert extract()["hs_object_id"].to_list() == ["1000", "1014"]
    assert "1 members of list 12 no longer exist" in logged.text


def test_extract_survives_temporary_faults(
    service: HubSpot, extract: Extract, clock: Clock
) -> None:
    service.add("12", *numbered(600))
    service.faults["/lists/12"] = [Reply(502, b"<html>"), DROPPED]
    service.faults[MEMBERS] = [
        Reply(200, b"x" * 1000, cut_off=10),
        None,
        Reply(200, b'{"results": ['),
        Reply(429, headers={"retry-after": "77"}),
        Reply(503),
    ]
    # Fewer than tries, for one reader may meet them all.
    service.faults[READ] = [NOTHING, as_json({"policyName": "SECONDLY"}, 429), DROPPED]
    assert extract()["email"].to_list() == [each["email"] for each in numbered(600)]
    assert max(clock.slept) == 77


def test_extract_repeats_batch_that_is_not_complete(service: HubSpot, extract: Extract) -> None:
    service.add("12", {"email": "whole"})
    half = {"id": "1000", "properties": {"email": "half"}}
    service.faults[READ] = [as_json({"status": "PROCESSING", "results": [half]})]
    assert extract()["email"].to_list() == ["whole"]


@pytest.mark.parametrize(
    ("ending", "fault", "problem"),
    [
        (MEMBERS, Reply(500, CANARY.encode()), "answered 500 on the members of list 12"),
        (MEMBERS, DROPPED, "no answer on the members of list 12: RemoteProtocolError"),
        (MEMBERS, Reply(200, b"<html>"), "no JSON"),
        (READ, NOTHING, "lacks 3 of 3 contacts of list 12"),
    ],
)
def test_extract_is_unavailable_when_faults_persist(
    service: HubSpot, delay: Refusal, ending: str, fault: Reply, problem: str
) -> None:
    service.add("12", *numbered(3))
    service.faults[ending] = [fault] * 5
    assert problem in delay()
    assert service.count(ending) == 5


def test_extract_is_unavailable_when_body_dribbles(
    service: HubSpot, delay: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "CALL_SECONDS", 0.05)
    endless = Reply(200, headers={"content-length": "1000000"}, dribbles=b"x")
    service.faults["/lists/12"] = [endless] * 5
    assert "no answer on list 12: not within 0.05 seconds" in delay()


def test_extract_is_unavailable_while_list_or_service_is_not_ready(
    service: HubSpot, delay: Refusal
) -> None:
    service.add("12", *numbered(1))
    service.processing = "PROCESSING"
    assert "still working out who is in list 12" in delay()
    assert "no answer on list 12: ConnectError" in delay(base_url="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"token": "pat-eu1-wrong"}, "refuses access to list 12: 401 INVALID_AUTHENTICATION"),
        ({"token": "tökén"}, "characters that no token has"),
        ({"token": "two\r\nlines"}, "characters that no token has"),
        ({"token": ""}, "The token is empty"),
        ({"list_id": "99"}, "does not know list 99: 404 OBJECT_NOT_FOUND"),
        ({"list_id": "../lists/12"}, "does not know list ../lists/12"),
        ({"properties": ["email", "Email", "nope"]}, "of these names: Email, nope"),
    ],
)
def test_extract_says_what_is_wrong_with_the_block(
    service: HubSpot, refusal: Refusal, changes: dict[str, Any], problem: str
) -> None:
    service.add("12", *numbered(3))
    message = refusal(**changes)
    assert problem in message
    assert not [secret for secret in ("pat-eu1", "tök", "lines") if secret in message]
    assert service.count(READ) == 0


def test_extract_refuses_list_of_other_objects(service: HubSpot, refusal: Refusal) -> None:
    service.add("12", *numbered(3))
    service.object_type = "0-2"
    assert "holds records of type 0-2, not contacts" in refusal()


def test_extract_refuses_property_that_no_contact_has(service: HubSpot, refusal: Refusal) -> None:
    service.add("12", {"email": "a", "passport": "canary"}, {"email": "b", "passport": None})
    service.hidden = {"passport"}
    message = refusal(properties=["email", "passport"])
    assert "gives no contact a value for passport" in message
    assert "scope" in message


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (as_json({"policyName": "DAILY", "message": CANARY}, 429), "calls for today are used up"),
        (as_json({}, 429, X_HubSpot_RateLimit_Daily_Remaining="0"), "calls for today are used up"),
        (as_json({"category": "MISSING_SCOPES"}, 403), "3 contacts of list 12: 403 MISSING_SCOPES"),
        (as_json({"category": "VALIDATION_ERROR"}, 400), "answered 400 VALIDATION_ERROR on 3 cont"),
        (as_json({"category": CANARY}, 400), "answered 400 on 3 contacts"),
        (as_json([], 400), "answered 400 on 3 contacts"),
        (as_json([{"category": "ODD"}], 400), "answered 400 ODD on 3 contacts"),
        (Reply(302, headers={"location": "https://elsewhere.example"}), "answered 302 on 3 contac"),
        (as_json({"status": "COMPLETE", "results": [{"id": CANARY}]}), "results.0.properties (mis"),
        (
            as_json({"status": "COMPLETE", "results": [], "errors": [{"category": "FORBIDDEN"}]}),
            "cannot read 3 contacts of list 12: FORBIDDEN",
        ),
    ],
)
def test_extract_does_not_repeat_refused_call(
    service: HubSpot, refusal: Refusal, fault: Reply, problem: str
) -> None:
    service.add("12", *numbered(3))
    service.faults[READ] = [fault]
    assert problem in refusal()
    assert service.count(READ) == 1


@pytest.mark.parametrize("ending", [MEMBERS, READ])
def test_extract_ends_its_threads_when_cancelled(
    service: HubSpot, extract: Extract, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    service.add("12", *numbered(1000))
    before = set(threading.enumerate())
    monkeypatch.setattr(hubspot, "BATCHES_AT_ONCE", 4)
    cancelled = RetryPolicy(sleep=Mock(side_effect=TerminationSignal(15)))
    monkeypatch.setattr(HubSpotCrm, "retry", cancelled)
    service.faults[ending] = [None, None, DROPPED]
    with pytest.raises(TerminationSignal):
        extract()
    started = set(threading.enumerate()) - before
    assert not [thread for thread in started if "ThreadPool" in thread.name]
    assert service.count(READ) < 10


VALUES = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(VALUES, VALUES, st.booleans()), max_size=25), batch=st.integers(1, 9)
)
def test_extract_keeps_any_value(
    service: HubSpot, extract: Extract, rows: list[tuple[Any, Any, bool]], batch: int
) -> None:
    service.contacts.clear()
    service.add("12", *[{"a": a, "b": b} for a, b, _ in [*rows, ("", None, True)]])
    for record, (_, _, exists) in zip(list(service.contacts), rows, strict=False):
        if not exists:
            del service.contacts[record]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hubspot, "CONTACTS_AT_ONCE", batch)
        patch.setattr(hubspot, "BATCHES_AT_ONCE", 2)
        found = extract(properties=["b", "a"])
    expected = [(b, a) for a, b, exists in rows if exists]
    assert found.rows() == [*expected, (None, "")]


def test_extract_refuses_pages_in_a_circle(service: HubSpot, refusal: Refusal) -> None:
    service.add("12", *numbered(1))
    service.faults[MEMBERS] = [as_json({"results": [], "paging": {"next": {"after": "x"}}})] * 2
    assert "members of list 12 lead in a circle" in refusal()


@pytest.mark.parametrize(
    "changes",
    [
        {"properties": []},
        {"properties": ["email", ""]},
        {"properties": ["email", "email"]},
        {"base_url": "http://api.hubapi.com"},
        {"base_url": "https://"},
        {"base_url": "https://x:port"},
    ],
)
def test_block_refuses_invalid_settings(crm: Crm, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        crm(**changes)


def test_logs_hold_no_secret_and_no_value(
    service: HubSpot, crm: Crm, refusal: Refusal, logged: pytest.LogCaptureFixture
) -> None:
    service.add("12", *[{"email": CANARY}] * 101)
    service.faults[READ] = [Reply(500, CANARY.encode()), as_json({"results": [{"id": CANARY}]})]
    refusal()
    assert "batch/read" in logged.text
    assert TOKEN not in logged.text
    assert CANARY not in logged.text
    assert TOKEN not in repr(crm())
