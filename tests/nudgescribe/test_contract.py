import inspect
from datetime import UTC, date, datetime

import pytest
from pydantic import ValidationError

from nudgescribe import contract

MODELS = [
    model
    for _, model in inspect.getmembers(contract, inspect.isclass)
    if issubclass(model, contract.Answer | contract.Request)
    and model not in (contract.Answer, contract.Request)
]
ANSWERS = [model for model in MODELS if issubclass(model, contract.Answer)]
REQUESTS = [model for model in MODELS if issubclass(model, contract.Request)]


def run(**changes: object) -> dict[str, object]:
    return {"run_number": 2, "status": "Processing", **changes}


@pytest.mark.parametrize("model", REQUESTS)
def test_requests_are_written_strictly(model: type[contract.Request]) -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        model.model_validate({"no such field": 1})


@pytest.mark.parametrize("model", ANSWERS)
def test_answers_are_read_leniently(model: type[contract.Answer]) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate({"no such field": 1})
    assert {error["type"] for error in caught.value.errors()} == {"missing"}


def test_known_fields_are_type_checked() -> None:
    with pytest.raises(ValidationError, match="run_number"):
        contract.Run.model_validate(run(run_number="2"))


def test_dates_are_parsed_and_need_a_zone() -> None:
    json = '{"run_number": 2, "status": "x", "started_at": "2026-11-21T22:00:00Z"}'
    started = contract.Run.model_validate_json(json).started_at
    assert started == datetime(2026, 11, 21, 22, tzinfo=UTC)
    with pytest.raises(ValidationError, match="timezone"):
        contract.Run.model_validate_json(json.replace("Z", ""))
    campaign = '{"campaign_id": "1", "name": "n", "status": "x", "current_run": 1, '
    parsed = contract.Campaign.model_validate_json(campaign + '"start_date": "2026-11-21"}')
    assert parsed.start_date == date(2026, 11, 21)


def test_a_status_the_service_adds_later_is_read() -> None:
    assert contract.Run.model_validate(run(status="Paused")).status == "Paused"


def test_what_is_secret_or_personal_does_not_print() -> None:
    shown = [
        repr(contract.SignIn(email="e", password="canary")),
        repr(
            contract.Tokens(
                access_token="canary", refresh_token="canary", token_type="B", expires_in=1
            )
        ),
        repr(contract.PageLink(url="canary", expires_at=datetime.now(UTC))),
        repr(contract.MessageRow(customer_id="canary", message="canary")),
        repr(contract.CsvPage(content="canary")),
        repr(
            contract.UploadCustomer(
                workspace_id="w", customer_group_id="g", customer={"a": "canary"}
            )
        ),
        repr(
            contract.DeleteCustomers(
                workspace_id="w", customer_group_id="g", customer_ids=["canary"]
            )
        ),
    ]
    assert "canary" not in "".join(shown)
