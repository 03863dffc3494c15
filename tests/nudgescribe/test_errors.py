import pickle
from collections.abc import Callable

import httpx
import pytest

from nudgescribe import errors
from nudgescribe.auth import Credentials
from nudgescribe.client import NudgescribeClient
from nudgescribe.rfc4180 import RepeatedColumns
from tests.support.response_tamperer import answering


@pytest.mark.parametrize(
    "error",
    [
        errors.NotFound("Campaign 7 is gone."),
        errors.QuotaExceeded("Not now.", 30),
        RepeatedColumns("The CSV repeats a.", [1, 3]),
    ],
)
def test_error_is_the_same_after_pickling(error: errors.NudgeflowError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error) == f"{error.problem} {error.advice}"
    assert vars(again) == vars(error)


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (400, "Only Published campaigns can be rerun", errors.NotPublished),
        (
            400,
            "All campaign messages must be published before initiating a rerun",
            errors.UnpublishedMessages,
        ),
        (400, "Whatever", errors.BadRequest),
        (401, "Missing required fields.", errors.BadRequest),
        (401, "Campaign not found.", errors.NotFound),
        (401, "Invalid Workspace", errors.NotFound),
        (403, "Unauthorized", errors.AuthError),
        (418, "No full stop", errors.BadRequest),
        (404, "File not found.", errors.NotFound),
        (429, "Usage limit reached.", errors.QuotaExceeded),
        (500, "Failed to parse.", errors.ServerError),
        (502, "", errors.ServerError),
    ],
)
def test_error_of_answer_follows_its_text_and_status(
    status: int, text: str, kind: type[errors.ApiError]
) -> None:
    response = httpx.Response(
        status, json={"message": text}, request=httpx.Request("POST", "https://x/v1/y?key=secret")
    )
    error = errors.from_response(response)
    assert type(error) is kind
    assert str(error).startswith(f"POST /v1/y answered {status}")
    assert kind.advice in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error": "A"}', "A"),
        (b'{"detail": "B"}', "B"),
        (b'{"message": {"customer": "Anna"}, "detail": "C"}', "C"),
        (b'["Anna"]', ""),
        (b'{"customer": "Anna"}', ""),
        (b"<html>Anna</html>", ""),
        (b'{"message": "' + b"x" * 999 + b'"}', "x" * 200),
    ],
)
def test_error_keeps_only_a_short_text_of_the_body(body: bytes, text: str) -> None:
    assert errors.message_of(httpx.Response(400, content=body)) == text


def strange(call: Callable[[NudgescribeClient], object], content: bytes) -> str:
    credentials = Credentials("a", "b", "c", "d")
    with NudgescribeClient("http://x", credentials, transport=answering(content)) as client:
        with pytest.raises(errors.ContractMismatch) as caught:
            call(client)
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_mismatch_names_field_and_not_its_value() -> None:
    said = strange(lambda c: c.count_message_pages("x"), b'{"num_files": "Anna"}')
    assert "/v1/messages/pages" in said
    assert "num_files (int_type)" in said
    assert "Anna" not in said


def test_mismatch_names_body_that_is_no_json() -> None:
    assert "body (json_invalid)" in strange(lambda c: c.publish("x"), b"<html>Anna</html>")


def test_mismatch_names_path_of_nested_field() -> None:
    said = strange(lambda c: c.rerun_history("x"), b'{"runs": [{"status": "Processing"}]}')
    assert "runs.0.run_number (missing)" in said
