import inspect
from datetime import UTC, date, datetime

import pytest
from pydantic import BaseModel, ValidationError

from nudgescribe import contract

MODELS = [
    model
    for _, model in inspect.getmembers(contract, inspect.isclass)
    if issubclass(model, contract.Answer | contract.Request)
    and model not in (contract.Answer, contract.Listing, contract.Request)
]
ANSWERS = [model for model in MODELS if issubclass(model, contract.Answer)]
REQUESTS = [model for model in MODELS if issubclass(model, contract.Request)]


def run(**changes: object) -> dict[str, object]:
    return {"run_number": 2, "status": "Processing", **changes}


@pytest.mark.parametrize("model", REQUESTS)
def test_request_refuses_unknown_field(model: type[contract.Request]) -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        model.model_validate({"no such field": 1})


@pytest.mark.parametrize("model", ANSWERS)
def test_answer_ignores_unknown_field(model: type[contract.Answer]) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate({"no such field": 1})
    assert {error["type"] for error in caught.value.errors()} == {"missing"}


def test_answer_checks_types_of_known_fields() -> None:
    with pytest.raises(ValidationError, match="run_number"):
        contract.Run.model_validate(run(run_number="2"))


@pytest.mark.parametrize(
    "odd",
    [
        {"started_at": 1764000000, "completed_at": "yesterday", "phase": []},
        {"initiated_by": 7, "error": {"code": 1}, "customer_group_name": False},
        {"comparison_summary": {"matched": "1"}},
    ],
)
def test_field_that_no_refresh_needs_is_none_when_it_does_not_fit(odd: dict[str, object]) -> None:
    parsed = contract.Run.model_validate(run(**odd, segment_count=3)).model_dump()
    assert [parsed[name] for name in odd] == [None] * len(odd)
    assert (parsed["run_number"], parsed["segment_count"]) == (2, 3)


def test_answer_parses_times_and_takes_those_without_zone_as_utc() -> None:
    json = '{"run_number": 2, "status": "x", "started_at": "2026-11-21T22:00:00Z"}'
    for time in (json, json.replace("Z", ""), json.replace("22:00:00Z", "23:00:00+01:00")):
        started = contract.Run.model_validate_json(time).started_at
        assert started == datetime(2026, 11, 21, 22, tzinfo=UTC)
    with pytest.raises(ValidationError, match="ISO 8601"):
        contract.CampaignListRequest.model_validate({"published_from": 1793520000})
    with pytest.raises(ValidationError, match="timezone"):
        contract.CampaignListRequest.model_validate({"published_from": "2026-11-21T22:00:00"})
    campaign = '{"campaign_id": "1", "name": "n", "status": "x", "current_run": 1, '
    parsed = contract.Campaign.model_validate_json(campaign + '"start_date": "2026-11-21"}')
    assert parsed.start_date == date(2026, 11, 21)


def test_run_reads_status_the_service_has_added() -> None:
    assert contract.Run.model_validate(run(status="Paused")).status == "Paused"


@pytest.mark.parametrize(
    ("model", "secrets"),
    [
        (contract.SignIn, ["password"]),
        (contract.Tokens, ["access_token", "refresh_token"]),
        (contract.PageLink, ["url"]),
        (contract.MessageRow, ["customer_id", "message"]),
        (contract.CsvPage, ["content"]),
        (contract.UploadCustomer, ["customer"]),
        (contract.DeleteCustomers, ["customer_ids"]),
    ],
)
def test_model_prints_no_secret_and_no_customer(model: type[BaseModel], secrets: list[str]) -> None:
    values = dict.fromkeys(model.model_fields, "plain") | dict.fromkeys(secrets, "canary")
    assert "canary" not in repr(model.model_construct(None, **values))


def test_request_does_not_quote_what_it_refuses() -> None:
    with pytest.raises(ValidationError) as refused:
        contract.DeleteCustomers(
            workspace_id="w", customer_group_id="g", customer_ids=["somebody", "with a \0"]
        )
    assert "somebody" not in str(refused.value)
