"""What may lie around the answers of a real account, and what its fields may be called."""

import json
import subprocess
import sys
from io import BytesIO
from typing import Any

import httpx
import pytest

from nudgescribe import errors
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import MESSAGES_FETCH, MESSAGES_PAGES
from nudgescribe.retry import RetryPolicy
from tests.conftest import Company
from tests.support.response_tamperer import answering

TEXT = 'customer_id,message\r\n0007,"Hello 😀,\n""you"""\r\n'
ROW = {"customer_id": "0007", "message": "Hello"}


def client_of(company: Company, answer: Any) -> NudgescribeClient:
    transport = answering(json.dumps(answer))
    return company.client(transport=transport, retry=RetryPolicy(attempts=1))


@pytest.mark.parametrize(
    "answer",
    [
        {"content": TEXT},
        TEXT,
        {"data": TEXT},
        {"data": {"content": TEXT}},
        {"status": "ok", "data": {"content": TEXT, "rows": 1}, "meta": {"page": [0]}},
        {"content": TEXT, "meta": [1, "a", {"b": [None, 2.5]}], "data": [7, "x"]},
        {"meta": [1, "a"], "data": {"content": TEXT, "meta": [{"b": 1}, "c"]}},
        {"meta": [1, "a"], "data": TEXT},
        {"content": TEXT, "data": {"content": "another"}},
    ],
)
def test_page_is_read_as_text_in_each_envelope(company: Company, answer: object) -> None:
    with client_of(company, answer) as client:
        page = BytesIO()
        assert client.download_page("c", 0, page, run_number=1) == len(TEXT.encode())
        assert page.getvalue().decode() == client.fetch_csv("c", 0) == TEXT


@pytest.mark.parametrize("answer", [[ROW], {"data": [ROW]}, {"data": {"messages": [ROW]}}])
def test_rows_are_read_in_each_envelope(company: Company, answer: object) -> None:
    with client_of(company, answer) as client:
        (row,) = client.fetch_rows("c", 0)
    assert (row.customer_id, row.message) == ("0007", "Hello")


@pytest.mark.parametrize(
    "answer",
    [
        {"numFiles": 7},
        {"data": 7},
        {"data": {"numFiles": 7}},
        {"num_files": 7, "data": None},
        {"data": {"x": 1}, "numFiles": 7},
        {"data": {"num_files": 7}, "message": "ok"},
        {"num_files": 7, "data": {"num_files": 8}},
    ],
)
def test_number_is_read_in_each_envelope(company: Company, answer: object) -> None:
    with client_of(company, answer) as client:
        assert client.count_message_pages("c") == 7


def test_malformed_record_in_camel_case_is_set_aside_with_its_id(company: Company) -> None:
    good = {"customerGroupId": "g1", "workspaceId": "w", "name": "One"}
    with client_of(company, {"data": [good, {"customerGroupId": "g2"}]}) as client:
        groups = client.list_groups("w")
    assert [group.customer_group_id for group in groups] == ["g1"]
    assert [record.id for record in groups.malformed] == ["g2"]


@pytest.mark.parametrize("answer", [7, None, {}, {"data": None}, {"data": {"files": 7}}])
def test_answer_without_the_number_is_refused(company: Company, answer: object) -> None:
    # A bare number may have lost its last digits.
    with client_of(company, answer) as client:
        with pytest.raises(errors.ContractMismatch, match=rf"{MESSAGES_PAGES} .*correct a name"):
            client.count_message_pages("c")


@pytest.mark.parametrize("answer", [7, None, [TEXT], {"data": None}, {"content": 7}])
def test_page_without_text_is_refused(company: Company, answer: object) -> None:
    with client_of(company, answer) as client:
        with pytest.raises(errors.ContractMismatch, match=f"{MESSAGES_FETCH} holds no content"):
            client.download_page("c", 0, BytesIO(), run_number=1)


@pytest.mark.parametrize(
    "body",
    [{"data": {"message": "auth error"}}, {"data": None, "message": "auth error"}, "auth error"],
)
def test_error_is_told_in_each_envelope(company: Company, body: object) -> None:
    refusal = httpx.Response(403, json=body)
    assert errors.message_of(refusal) == "auth error"


def test_name_is_corrected_in_one_place() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.nudgescribe.renamed_account"], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    sent = [json.loads(line) for line in ran.stdout.splitlines()]
    assert {name for body in sent for name in body} == {
        *("email", "password"),
        "workspace_id",
        *("campaign", "file_num", "export_type"),
    }
