"""Faults on request: what a client sees of them, and that they go as they came."""

from time import monotonic

import httpx
import pytest

from nudgescribe import errors
from nudgescribe.client import NudgescribeClient
from nudgescribe.retry import RetryPolicy
from sandbox.middleware.faults import Fault, Faults
from tests.conftest import Company, Sandbox
from tests.sandbox.middleware.conftest import Audited, PutFault
from tests.support.exports import downloaded

LIST, FETCH, PUBLISH = "/v1/campaign/all", "/v1/messages/fetch", "/v1/messages/publish"


def test_status_fault_has_retry_after(client: NudgescribeClient, put_fault: PutFault) -> None:
    put_fault(LIST, status=429, retry_after=7)
    with pytest.raises(errors.QuotaExceeded, match="A fault switched on") as caught:
        client.campaigns()
    assert caught.value.retry_after == 7


def test_delay_fault_delays_the_answer(client: NudgescribeClient, put_fault: PutFault) -> None:
    put_fault(LIST, delay=0.3)
    start = monotonic()
    assert client.campaigns()
    assert monotonic() - start >= 0.3


@pytest.mark.parametrize(("when", "calls"), [("before", 0), ("after", 1)])
def test_drop_fault_closes_the_connection_before_or_after_the_work(
    company: Company,
    client: NudgescribeClient,
    put_fault: PutFault,
    audited: Audited,
    when: str,
    calls: int,
) -> None:
    put_fault(PUBLISH, drop=when)
    before = len(audited(PUBLISH))
    with pytest.raises(errors.ConnectionFailed):
        client.publish(company.seeded.campaign_id)
    assert len(audited(PUBLISH)) == before + calls


def test_truncate_fault_cuts_the_body(
    company: Company, client: NudgescribeClient, put_fault: PutFault
) -> None:
    campaign = company.seeded.campaign_id
    put_fault("/exports/", truncate=True)
    assert downloaded(client, campaign).decode() == client.fetch_csv(campaign, 0)
    put_fault(FETCH, truncate=True)
    with pytest.raises(errors.ConnectionFailed):
        downloaded(client, campaign)


def test_dribble_fault_sends_the_body_slowly(
    company: Company, client: NudgescribeClient, put_fault: PutFault, audited: Audited
) -> None:
    put_fault(LIST, dribble=0.0001)
    assert client.campaigns()
    put_fault(PUBLISH, dribble=0.05)
    quick = RetryPolicy(attempts=1)
    with company.client(retry=quick, call_seconds=0.2) as impatient:
        with pytest.raises(errors.ConnectionFailed, match="no whole answer within 0.2 seconds"):
            impatient.publish(company.seeded.campaign_id)
    assert audited(PUBLISH)


def test_expired_fault_refuses_token_and_link(
    company: Company, client: NudgescribeClient, put_fault: PutFault
) -> None:
    put_fault(LIST, expired=True, times=2)
    with pytest.raises(errors.AuthError, match="auth error"):
        client.campaigns()  # the token is renewed once, and the new one refused
    assert client.campaigns()
    link = client.fetch_link(company.seeded.campaign_id, 0).url
    put_fault("/exports/", expired=True, times=1)
    answers = [httpx.get(link) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [403, 200]
    assert "The link has expired" in answers[0].text


def test_fault_fires_as_often_as_times_says(client: NudgescribeClient, put_fault: PutFault) -> None:
    put_fault("/v1/", status=503, times=2)
    for _ in range(2):
        with pytest.raises(errors.ServerError):
            client.campaigns()
    assert client.campaigns()


def test_clear_switches_all_faults_off(
    sandbox: Sandbox, client: NudgescribeClient, put_fault: PutFault
) -> None:
    put_fault(LIST, status=500)
    listed = httpx.get(f"{sandbox.url}/sandbox/faults").json()["faults"]
    assert [(each["endpoint"], each["status"]) for each in listed] == [(LIST, 500)]
    assert httpx.delete(f"{sandbox.url}/sandbox/faults").json() == {"faults": []}
    assert client.campaigns()


def test_rate_fires_for_the_same_calls_of_a_seed() -> None:
    def hit(seed: int) -> list[bool]:
        faults = Faults()
        faults.put(Fault(endpoint=LIST, status=500, rate=0.3, seed=seed))
        return [faults.fire("POST", LIST) is not None for _ in range(1000)]

    assert hit(1) == hit(1) != hit(2)
    assert 250 < sum(hit(1)) < 350


def test_most_specific_fault_fires() -> None:
    faults = Faults()
    for endpoint in ("/v1/", FETCH):
        faults.put(Fault(endpoint=endpoint))
    faults.put(Fault(endpoint="/v1/", method="PUT"))
    found = [faults.fire("POST", path) for path in (FETCH, LIST, "/v2/x")]
    assert [each and each.endpoint for each in found] == [FETCH, "/v1/", None]
    found = [faults.fire("PUT", path) for path in (FETCH, LIST)]
    assert [each and (each.endpoint, each.method) for each in found] == [
        (FETCH, None),
        ("/v1/", "PUT"),
    ]
