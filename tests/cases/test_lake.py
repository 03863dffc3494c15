"""Secrets of the account, which travel over its base URL."""

from typing import Any

import pytest
from pydantic import ValidationError

from blocks import HubSpotCrm, NudgescribeAccount
from tests.cases.judging import wrong

ACCOUNT = {"email": "e", "password": "p", "api_key": "k", "api_code": "c"}
HUBSPOT = {"token": "t", "list_id": "1", "properties": ["email"]}


@pytest.mark.parametrize(
    ("block", "values"),
    [
        wrong(NudgescribeAccount, {**ACCOUNT, "base_url": "http://a.example"}, why="sent in clear"),
        (HubSpotCrm, {**HUBSPOT, "base_url": "http://a.example"}),
    ],
)
def test_secret_in_clear_is_refused(block: Any, values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        block.model_validate(values)


def test_account_of_this_machine_needs_no_https() -> None:
    NudgescribeAccount.model_validate({**ACCOUNT, "base_url": "http://127.0.0.1:8000"})
