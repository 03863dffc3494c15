import httpx
import pytest

from nudgescribe import errors
from nudgescribe.retry import RetryPolicy
from tests.conftest import Company
from tests.support.response_tamperer import Fault, ResponseTamperer

LIST = "/v1/campaign/all"
PUBLISH = "/v1/messages/publish"


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
def test_read_is_repeated_after_fault(
    company: Company, retry: RetryPolicy, slept: list[float], fault: Fault
) -> None:
    transport = ResponseTamperer({LIST: [fault, fault]})
    with company.client(transport=transport, retry=retry) as client:
        assert client.campaigns()
    assert transport.calls[LIST] == 3
    assert len(slept) == 2


@pytest.mark.parametrize("fault", [failure(503), failure(429), httpx.ReadTimeout])
def test_change_is_not_repeated_after_fault(
    company: Company, retry: RetryPolicy, fault: Fault
) -> None:
    transport = ResponseTamperer({PUBLISH: [fault]})
    with company.client(transport=transport, retry=retry) as client:
        with pytest.raises(errors.Retryable):
            client.publish(company.seeded.campaign_id)
    assert transport.calls[PUBLISH] == 1


def test_change_is_repeated_when_service_says_when(
    company: Company, retry: RetryPolicy, slept: list[float]
) -> None:
    put_off = [failure(429, retry_after="20"), failure(429, retry_after="30")]
    transport = ResponseTamperer({PUBLISH: [*put_off]})
    with company.client(transport=transport, retry=retry) as client:
        assert client.publish(company.seeded.campaign_id).job_uid
    assert slept == [20, 30]
    assert transport.calls[PUBLISH] == 3


def test_change_fails_when_wait_is_longer_than_patience(
    company: Company, retry: RetryPolicy
) -> None:
    transport = ResponseTamperer({PUBLISH: [failure(429, retry_after="3600")]})
    with company.client(transport=transport, retry=retry) as client:
        with pytest.raises(errors.QuotaExceeded):
            client.publish(company.seeded.campaign_id)
    assert transport.calls[PUBLISH] == 1


def test_read_is_not_repeated_after_refusal(company: Company, retry: RetryPolicy) -> None:
    transport = ResponseTamperer({LIST: [failure(400)]})
    with company.client(transport=transport, retry=retry) as client:
        with pytest.raises(errors.BadRequest):
            client.campaigns()
    assert transport.calls[LIST] == 1


def test_read_is_repeated_when_unframed_answer_was_cut_off(
    company: Company, retry: RetryPolicy
) -> None:
    half = httpx.Response(200, content=b'{"workspaces": [')
    del half.headers["content-length"]
    transport = ResponseTamperer({LIST: [half]})
    with company.client(transport=transport, retry=retry) as client:
        assert client.campaigns()
    assert transport.calls[LIST] == 2


def test_read_fails_after_last_attempt(
    company: Company, retry: RetryPolicy, slept: list[float]
) -> None:
    transport = ResponseTamperer({LIST: [failure(500)] * 9})
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
def test_retry_waits_as_long_as_retry_after_says(
    company: Company,
    retry: RetryPolicy,
    slept: list[float],
    asked: str,
    said_at: str | None,
    wait: float,
) -> None:
    date = {"date": said_at} if said_at else {}
    transport = ResponseTamperer({LIST: [failure(429, retry_after=asked, **date)]})
    with company.client(transport=transport, retry=retry) as client:
        client.campaigns()
    assert wait <= slept[0] <= max(wait, retry.first_wait)


def test_read_fails_when_wait_is_longer_than_patience(company: Company, retry: RetryPolicy) -> None:
    transport = ResponseTamperer({LIST: [failure(429, retry_after="3600")]})
    with company.client(transport=transport, retry=retry) as client:
        with pytest.raises(errors.QuotaExceeded) as caught:
            client.campaigns()
    assert caught.value.retry_after == 3600
