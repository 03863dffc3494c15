"""What becomes of refreshes when a container is killed or stopped, has no network or no room: what
docs/recover.md says.

Refreshes are held in four phases by what the sandbox answers, so that one blow hits them all.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Crashed

from tests.containers.conftest import (
    Campaign,
    approve,
    fault,
    no_faults,
    resume_reviewed,
    step_of,
)
from tests.support.clock import until
from tests.support.containers import Stack
from tests.support.deployed import becomes, retry, state_of
from tests.support.disks import Disk

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

HELD = {"status": 429, "retry_after": 20}
"""Asks to come back later; a call does four times."""
SERVICES = ("worker", "server", "postgres", "redis", "services", "sandbox")
BLOWS = [
    (service, blow)
    for number, service in enumerate(SERVICES)
    for blow in (("stop", "kill") if number % 2 else ("kill", "stop"))
]
CUTS = ["server", "sandbox"]
HALF = os.environ.get("CHAOS_HALF")
TAKEN, CUT = (BLOWS[int(HALF) :: 6], CUTS[1:]) if HALF else (BLOWS, CUTS)
"""Each takes a minute or two: with CHAOS_HALF every sixth."""


@pytest.fixture(autouse=True)
def all_is_well_again(stack: Stack) -> Iterator[None]:
    yield
    no_faults()


@dataclass(frozen=True)
class Held:
    """Refreshes, each in a phase of its own."""

    campaigns: list[Campaign]
    runs: list[UUID]

    def finish(self) -> None:
        """All of them end well, once a person has approved; what is fetched is approved."""
        no_faults()
        for campaign in (self.campaigns[0], *self.campaigns[2:]):
            approve(campaign.seeded.campaign_id)
        for run in self.runs:
            until(lambda run=run: state_of(run).name in ("Completed", "Suspended"))
        resume_reviewed()
        for campaign, run in zip(self.campaigns, self.runs, strict=True):
            becomes(run, "Completed")
            campaign.is_refreshed_once()


def held(campaigns: Callable[[], Campaign]) -> Held:
    """One is suspended for its review, one fetches, one starts its rerun, one uploads."""
    four = [campaigns() for _ in range(4)]
    reviewed, fetching, starting, uploading = four
    runs = [reviewed.refresh(review="suspend")]
    becomes(runs[0], "Suspended")
    fault("/v1/messages/fetch", **HELD)
    runs.append(fetching.refresh(review="wait"))
    approve(fetching.seeded.campaign_id)
    until(lambda: step_of(runs[1]) == "plan_export")
    fault("/v1/campaign/rerun/initiate", **HELD)
    runs.append(starting.refresh(review="wait"))
    until(lambda: step_of(runs[2]) == "initiate_rerun")
    fault("/v1/customer/check", **HELD)
    runs.append(uploading.refresh(review="wait"))
    until(lambda: step_of(runs[3]) == "upload_customers")
    return Held(four, runs)


def crash_and_retry(run: UUID) -> None:
    """The automations crash what has been silent for 15 minutes; then a person retries it."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Crashed(), force=True)
    retry(run)


@pytest.mark.parametrize(("service", "blow"), TAKEN, ids=[f"{one}-{how}" for one, how in TAKEN])
def test_refreshes_end_well_once_a_container_is_back(
    service: str, blow: str, stack: Stack, campaigns: Callable[[], Campaign]
) -> None:
    four = held(campaigns)
    if blow == "kill":
        stack.kill(service)
    else:
        stack.stop(service)
        if service == "worker":
            names = [state_of(run).name for run in four.runs]
            assert names == ["Suspended", *3 * ["AwaitingRetry"]]
        stack.start(service)
    if (service, blow) == ("worker", "kill"):
        for run in four.runs[1:]:
            crash_and_retry(run)
    four.finish()


@pytest.mark.parametrize("other", CUT)
def test_refresh_outlasts_a_cut_network(
    other: str, stack: Stack, campaigns: Callable[[], Campaign]
) -> None:
    four = held(campaigns)
    with stack.cut("worker", other):
        no_faults()
        tries = [stack.reaches("worker", other) for _ in range(8)]
    assert not any(tries)
    four.finish()


def test_refresh_goes_on_when_the_lake_has_room_again(
    stack: Stack, campaigns: Callable[[], Campaign]
) -> None:
    one = campaigns()
    with Disk(stack.lake, mounted=True).full():
        run = one.refresh(review="wait")
        failed = becomes(run, "Failed")
        assert "DiskFull" in str(failed.message)
    retry(run)
    approve(one.seeded.campaign_id)
    becomes(run, "Completed")
    one.is_refreshed_once()


def test_two_workers_with_one_host_name_do_not_take_each_other_for_dead(
    stack: Stack, campaigns: Callable[[], Campaign]
) -> None:
    one = campaigns()
    with stack.another_worker():
        fault("/v1/customer/check", **HELD)
        first = one.refresh(review="wait")
        until(lambda: step_of(first) == "upload_customers")
        seconds = [one.refresh(review="wait") for _ in range(3)]
        until(lambda: "claim_campaign" in {step_of(run) for run in seconds})
        no_faults()
        approve(one.seeded.campaign_id)
        becomes(first, "Completed")
        for run in seconds:
            becomes(run, "Joined")
    one.is_refreshed_once()
