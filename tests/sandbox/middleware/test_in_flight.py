"""Counts of calls and downloads in flight."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from nudgescribe import errors
from nudgescribe.client import NudgescribeClient
from nudgescribe.retry import RetryPolicy
from tests.conftest import Company, Sandbox
from tests.sandbox.middleware.conftest import PutFault
from tests.support.clock import until
from tests.support.exports import downloaded

LIST = "/v1/campaign/all"


def traffic(sandbox: Sandbox) -> dict[str, dict[str, int]]:
    return httpx.get(f"{sandbox.url}/sandbox/traffic").json()


def reset_peak(sandbox: Sandbox) -> None:
    quiet = {"now": 0, "most": 0}
    answer = httpx.delete(f"{sandbox.url}/sandbox/traffic").json()
    assert answer == {"calls": quiet, "downloads": quiet}


def wait_for(sandbox: Sandbox, now: int) -> None:
    until(lambda: traffic(sandbox)["calls"]["now"] == now, every=0.01)


def test_sequential_calls_have_a_peak_of_1(
    sandbox: Sandbox, company: Company, client: NudgescribeClient
) -> None:
    reset_peak(sandbox)
    for _ in range(50):
        client.campaigns()
        downloaded(client, company.seeded.campaign_id)
    assert traffic(sandbox) == {"calls": {"now": 0, "most": 1}, "downloads": {"now": 0, "most": 1}}


def test_concurrent_calls_are_counted_while_a_fault_delays_them(
    sandbox: Sandbox, client: NudgescribeClient, put_fault: PutFault
) -> None:
    reset_peak(sandbox)
    put_fault(LIST, delay=0.3)
    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(client.campaigns) for _ in range(5)]
        wait_for(sandbox, 5)
        assert all(call.result() for call in calls)
    assert traffic(sandbox)["calls"] == {"now": 0, "most": 5}
    reset_peak(sandbox)


@pytest.mark.parametrize("how", [{"drop": "before"}, {"drop": "after"}, {"truncate": True}])
def test_connection_closed_by_the_service_is_not_in_flight(
    sandbox: Sandbox, client: NudgescribeClient, put_fault: PutFault, how: dict[str, object]
) -> None:
    reset_peak(sandbox)
    put_fault(LIST, **how)
    for _ in range(10):
        with pytest.raises(errors.ConnectionFailed):
            client.campaigns()
    assert traffic(sandbox)["calls"] == {"now": 0, "most": 1}


def test_connection_closed_by_the_client_is_not_in_flight(
    sandbox: Sandbox, company: Company, put_fault: PutFault
) -> None:
    put_fault(LIST, delay=3)
    with company.client(timeout=0.1, retry=RetryPolicy(attempts=1)) as client:
        reset_peak(sandbox)
        for _ in range(3):
            with pytest.raises(errors.ConnectionFailed):
                client.campaigns()
    wait_for(sandbox, 0)
    assert traffic(sandbox)["calls"]["most"] == 1


def test_traffic_counts_refused_links_and_not_the_admin_page(sandbox: Sandbox) -> None:
    reset_peak(sandbox)
    assert httpx.get(f"{sandbox.url}/").status_code == 200
    assert httpx.get(f"{sandbox.url}/exports/none/none/run-1/00000.csv").status_code == 401
    assert traffic(sandbox) == {"calls": {"now": 0, "most": 0}, "downloads": {"now": 0, "most": 1}}
