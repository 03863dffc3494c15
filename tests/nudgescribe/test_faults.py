"""What the client makes of faults: which calls it repeats, and what its errors say and keep."""

from collections.abc import Callable

import httpx
import pytest

from nudgescribe import errors
from nudgescribe.auth import Credentials
from nudgescribe.client import NudgescribeClient
from nudgescribe.retry import RetryPolicy
from tests.conftest import Company
from tests.support.faults import Fault, FaultyTransport, answering

LIST = "/v1/campaign/all"
PUBLISH = "/v1/messages/publish"
FETCH = "/v1/messages/fetch"


def failure(status: int, **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json={"message": "Some text."}, headers=names)


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def retry(slept: list[float]) -> RetryPolicy:
    return RetryPolicy(sleep=slept.append)


@pytest.mark.parametrize(
    "fault",
    [
        failure(500),
        failure(503),
        failure(429),
        httpx.ConnectError,
        httpx.ReadTimeout,
        httpx.RemoteProtocolError,
    ],
)
def test_a_read_is_repeated(
    company: Company, retry: RetryPolicy, slept: list[float], fault: Fault
) -> None:
    transport = FaultyTransport({LIST: [fault, fault]})
    with company.client(transport=transport, retry=retry) as client:
        assert client.campaigns()
    assert transport.calls[LIST] == 3
    assert len(slept) == 2


@pytest.mark.parametrize("fault", [failure(503), failure(429), httpx.ReadTimeout])
def test_a_change_is_never_repeated(company: Company, retry: RetryPolicy, fault: Fault) -> None:
    transport = FaultyTransport({PUBLISH: [fault]})
    with company.client(transport=transport, retry=retry) as client:
        with pytest.raises(errors.TransientError):
            client.publish(company.seeded.campaign_id)
    assert transport.calls[PUBLISH] == 1


def test_a_change_that_is_put_off_is_sent_when_the_service_says(
    company: Company, retry: RetryPolicy, slept: list[float]
) -> None:
    put_off = [failure(429, retry_after="20"), failure(429, retry_after="30")]
    transport = FaultyTransport({PUBLISH: [*put_off]})
    with company.client(transport=transport, retry=retry) as client:
        assert client.publish(company.seeded.campaign_id).job_uid
    assert slept == [20, 30]
    assert transport.calls[PUBLISH] == 3


def test_a_change_that_is_put_off_for_long_is_not_waited_for(
    company: Company, retry: RetryPolicy
) -> None:
    transport = FaultyTransport({PUBLISH: [failure(429, retry_after="3600")]})
    with company.client(transport=transport, retry=retry) as client:
        with pytest.raises(errors.QuotaExceeded):
            client.publish(company.seeded.campaign_id)
    assert transport.calls[PUBLISH] == 1


def test_a_clear_refusal_is_not_repeated(company: Company, retry: RetryPolicy) -> None:
    transport = FaultyTransport({LIST: [failure(400)]})
    with company.client(transport=transport, retry=retry) as client:
        with pytest.raises(errors.BadRequest):
            client.campaigns()
    assert transport.calls[LIST] == 1


def test_an_answer_that_was_cut_off_where_nothing_tells_is_asked_for_again(
    company: Company, retry: RetryPolicy
) -> None:
    half = httpx.Response(200, content=b'{"workspaces": [')
    del half.headers["content-length"]
    transport = FaultyTransport({LIST: [half]})
    with company.client(transport=transport, retry=retry) as client:
        assert client.campaigns()
    assert transport.calls[LIST] == 2


def test_retries_end(company: Company, retry: RetryPolicy, slept: list[float]) -> None:
    transport = FaultyTransport({LIST: [failure(500)] * 9})
    with company.client(transport=transport, retry=retry) as client:
        with pytest.raises(errors.ServerError, match=r"answered 500: Some text\."):
            client.campaigns()
    assert transport.calls[LIST] == 5
    assert all(seconds <= 30 for seconds in slept)


@pytest.mark.parametrize(
    ("asked", "said_at", "wait"),
    [
        ("77", None, 77),
        # By the service's clock, wherever ours is.
        ("Sat, 21 Nov 2026 06:31:17 GMT", "Sat, 21 Nov 2026 06:30:00 GMT", 77),
        ("Sat, 21 Nov 2026 06:30:00 GMT", "Sat, 21 Nov 2026 06:31:17 GMT", 0),
        ("Sat, 21 Nov 2026 06:31:17 GMT", None, 0),
        ("soon", "Sat, 21 Nov 2026 06:30:00 GMT", 0),
    ],
)
def test_the_services_own_wait_is_honoured(
    company: Company,
    retry: RetryPolicy,
    slept: list[float],
    asked: str,
    said_at: str | None,
    wait: float,
) -> None:
    date = {"date": said_at} if said_at else {}
    transport = FaultyTransport({LIST: [failure(429, retry_after=asked, **date)]})
    with company.client(transport=transport, retry=retry) as client:
        client.campaigns()
    assert wait <= slept[0] <= max(wait, retry.first_wait)


def test_a_wait_beyond_our_patience_is_an_error(company: Company, retry: RetryPolicy) -> None:
    transport = FaultyTransport({LIST: [failure(429, retry_after="3600")]})
    with company.client(transport=transport, retry=retry) as client:
        with pytest.raises(errors.QuotaExceeded) as caught:
            client.campaigns()
    assert caught.value.retry_after == 3600


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
def test_each_outcome_has_its_error(status: int, text: str, kind: type[errors.ApiError]) -> None:
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
def test_only_a_short_text_of_an_error_body_is_kept(body: bytes, text: str) -> None:
    assert errors.message_of(httpx.Response(400, content=body)) == text


def strange(call: Callable[[NudgescribeClient], object], content: bytes) -> str:
    credentials = Credentials("a", "b", "c", "d")
    with NudgescribeClient("http://x", credentials, transport=answering(content)) as client:
        with pytest.raises(errors.ContractMismatch) as caught:
            call(client)
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_an_answer_that_does_not_fit_names_the_field_and_not_its_value() -> None:
    said = strange(lambda c: c.count_message_pages("x"), b'{"num_files": "Anna"}')
    assert "/v1/messages/pages" in said
    assert "num_files (int_type)" in said
    assert "Anna" not in said


def test_an_answer_that_is_no_json_is_a_mismatch() -> None:
    assert "body (json_invalid)" in strange(lambda c: c.publish("x"), b"<html>Anna</html>")


def test_a_missing_field_deep_in_an_answer_is_named() -> None:
    said = strange(lambda c: c.rerun_history("x"), b'{"runs": [{"status": "Processing"}]}')
    assert "runs.0.run_number (missing)" in said
