"""How often calls are repeated and polls made, and how long is waited between."""

from collections.abc import Callable
from dataclasses import dataclass

import httpx
import pytest

from nudgescribe import errors
from nudgescribe.contract import CAMPAIGNS, PUBLISH
from nudgescribe.errors import ServerError
from nudgescribe.retry import RetryPolicy, poll
from tests.conftest import Company
from tests.support.clock import Clock
from tests.support.response_tamperer import Fault, ResponseTamperer


def failure(status: int, **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json={"message": "Some text."}, headers=names)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@dataclass
class Service:
    """A service with faults; `calls` is how often the last call was made."""

    company: Company
    retry: RetryPolicy
    calls: int = 0

    def call(self, path: str, *faults: Fault) -> None:
        """Read something, or change something, by a path with these faults."""
        transport = ResponseTamperer({path: [*faults]})
        with self.company.client(transport=transport, retry=self.retry) as client:
            try:
                if path == PUBLISH:
                    assert client.publish(self.company.seeded.campaign_id).job_uid
                else:
                    assert client.campaigns()
            finally:
                self.calls = transport.calls[path]


@pytest.fixture
def service(company: Company, clock: Clock) -> Service:
    return Service(company, RetryPolicy(sleep=clock.sleep))


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
def test_read_is_repeated_after_fault(service: Service, clock: Clock, fault: Fault) -> None:
    service.call(CAMPAIGNS, fault, fault)
    assert service.calls == 3
    first, second = clock.slept
    assert first <= 0.5
    assert second <= 1


def test_read_is_repeated_when_unframed_answer_was_cut_off(service: Service) -> None:
    half = httpx.Response(200, content=b'{"workspaces": [')
    del half.headers["content-length"]
    service.call(CAMPAIGNS, half)
    assert service.calls == 2


@pytest.mark.parametrize("path", [CAMPAIGNS, PUBLISH])
def test_call_is_repeated_when_service_says_when(service: Service, clock: Clock, path: str) -> None:
    service.call(path, failure(429, retry_after="20"), failure(429, retry_after="30"))
    assert service.calls == 3
    assert clock.slept == [20, 30]


@pytest.mark.parametrize(
    ("path", "fault", "kind"),
    [
        (PUBLISH, failure(503), errors.ServerError),
        (PUBLISH, failure(429), errors.QuotaExceeded),
        (PUBLISH, httpx.ReadTimeout, errors.ConnectionFailed),
        (CAMPAIGNS, failure(400), errors.BadRequest),
        # Longer than patience.
        (PUBLISH, failure(429, retry_after="3600"), errors.QuotaExceeded),
        (CAMPAIGNS, failure(429, retry_after="3600"), errors.QuotaExceeded),
    ],
)
def test_call_is_not_repeated(
    service: Service, path: str, fault: Fault, kind: type[errors.ApiError]
) -> None:
    with pytest.raises(kind):
        service.call(path, fault)
    assert service.calls == 1


def test_read_fails_after_last_attempt(service: Service, clock: Clock) -> None:
    with pytest.raises(ServerError, match=r"answered 500: Some text\."):
        service.call(CAMPAIGNS, *[failure(500)] * 9)
    assert service.calls == 5
    assert all(seconds <= 30 for seconds in clock.slept)


# ---- polls ------------------------------------------------------------------------------------

POLICY = {"first_wait": 1, "longest_wait": 8, "growth": 2, "tolerated": 3}
DOWN = ServerError("down.")


def test_poll_waits_grow_with_jitter_up_to_the_longest(clock: Clock) -> None:
    polls = poll(lambda: 1, 100, clock.poll_policy(**POLICY))
    for _ in range(8):
        next(polls)
    for slept, longest in zip(clock.slept, [1, 2, 4, 8, 8, 8, 8], strict=True):
        assert longest / 2 <= slept <= longest


def test_poll_calls_last_at_the_deadline(clock: Clock) -> None:
    times = list(poll(lambda: clock.now, 10, clock.poll_policy(**POLICY)))
    assert (times[0], times[-1]) == (0, 10)
    assert list(poll(lambda: "seen", 0, clock.poll_policy(**POLICY))) == ["seen"]


def failing(*faults: Exception) -> Callable[[], str]:
    """A call that meets these errors before it returns something."""
    left = [*faults]

    def call() -> str:
        if left:
            raise left.pop()
        return "seen"

    return call


def test_poll_tolerates_retryable_errors(clock: Clock) -> None:
    assert next(poll(failing(DOWN, DOWN, DOWN), 100, clock.poll_policy(**POLICY))) == "seen"
    assert len(clock.slept) == 3


def test_error_of_the_last_call_does_not_hide_what_was_seen(clock: Clock) -> None:
    def call() -> str:
        if clock.now < 9:
            return "119"
        raise DOWN

    assert {*poll(call, 10, clock.poll_policy(**POLICY))} == {"119"}


@pytest.mark.parametrize(
    ("faults", "deadline"), [([DOWN] * 4, 100), ([DOWN], 0), ([ZeroDivisionError()], 100)]
)
def test_poll_raises_last_of_many_errors_and_others_at_once(
    clock: Clock, faults: list[Exception], deadline: float
) -> None:
    with pytest.raises(type(faults[0])):
        next(poll(failing(*faults), deadline, clock.poll_policy(**POLICY)))
    assert len(clock.slept) == len(faults) - 1
