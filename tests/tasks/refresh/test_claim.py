"""Who has a campaign: flow runs of a real Prefect server, a real lake, no flow."""

import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.logging import disable_run_logger
from prefect.states import Cancelled, Completed, Crashed, Failed, Running, Suspended

from blocks import DataLake
from blocks.storage.manifest import campaign_partition
from nudgescribe.polling import Pace
from tasks.campaigns import Refresh
from tasks.customers.staging import folder_of, keep_staged
from tasks.refresh import claim as claims
from tasks.refresh.claim import (
    Claim,
    Entry,
    Overlap,
    RefreshEnded,
    RefreshOpen,
    Register,
    claim_campaign,
    close_refresh,
    expire,
    is_alive,
    open_refreshes,
    release_refresh,
)
from tasks.refresh.report import RefreshResult
from tests.support.clock import Clock

CAMPAIGN = "a/campaign"
RESULT = RefreshResult(
    campaign_id=CAMPAIGN,
    campaign="C",
    run_number=2,
    customer_group_id="g",
    group="G",
    extracted=1,
    accepted=1,
    rejected=0,
    quarantine=None,
    matched=1,
    new=0,
    orphaned=0,
    customers_in_new=0,
    files=1,
    rows=1,
    bytes=1,
    path="p",
    seconds={},
)

Runs = Callable[[State[Any]], Refresh]
SetState = Callable[[Refresh, State[Any]], None]


@flow(name="campaign-refresh-stand-in")
def nothing() -> None: ...


@pytest.fixture
def flow_run(prefect_server: None) -> Runs:
    """Flow runs in a state, none of which does anything."""

    def make(state: State[Any]) -> Refresh:
        with get_client(sync_client=True) as client:
            made = client.create_flow_run(nothing, state=state)
        return Refresh(id=str(made.id), started=datetime(2026, 11, 22, tzinfo=UTC))

    return make


def becomes(run: Refresh, state: State[Any]) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, state, force=True)


@pytest.fixture
def lake(local: Any) -> DataLake:
    return local.lake


def claim(lake: DataLake, me: Refresh, overlap: Overlap = "join", minutes: float = 1) -> Claim:
    return claim_campaign.fn(lake, CAMPAIGN, me, overlap, minutes)


def half_way(lake: DataLake, run: Refresh) -> None:
    """What a refresh has when something was made of its list."""
    claim(lake, run)
    keep_staged.fn(lake, run)


def begun_by(claim: Claim, run: Refresh) -> bool:
    return claim.refresh is not None and claim.refresh.id.startswith(run.id)


def staged(lake: DataLake, run: Refresh) -> bool:
    return lake.files.exists(folder_of(run))


def test_the_first_one_has_it_and_has_it_still_when_retried(flow_run: Runs, lake: DataLake) -> None:
    me = flow_run(Running())
    assert claim(lake, me).refresh == me
    assert claim(lake, me).refresh == me


@pytest.mark.parametrize("state", [Running(), Suspended()], ids=["running", "suspended"])
def test_while_one_is_at_work_others_skip_or_fail(
    flow_run: Runs, lake: DataLake, state: State[Any]
) -> None:
    first, second = flow_run(state), flow_run(Running())
    half_way(lake, first)
    skipped = claim(lake, second, "skip")
    assert (skipped.refresh, skipped.outcome) == (None, "Skipped")
    assert f"Flow run {first.id}, {state.name}, has a refresh of campaign" in skipped.said
    with pytest.raises(RefreshOpen, match="options.overlap = join"):
        claim(lake, second, "fail")
    assert claim(lake, first).refresh == first


def test_who_joins_a_suspended_one_need_not_stay(flow_run: Runs, lake: DataLake) -> None:
    first = flow_run(Suspended())
    half_way(lake, first)
    joined = claim(lake, flow_run(Running()))
    assert (joined.refresh, joined.outcome) == (None, "Joined")
    assert "waits for its review and goes on by itself" in joined.said


class Waiting:
    """A clock on which something happens while somebody waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
        self.clock = Clock()
        self._happens = happens
        pace = Pace(clock=lambda: self.clock.now, sleep=self.sleep)
        monkeypatch.setattr(claims, "PACE", pace)

    def sleep(self, seconds: float) -> None:
        self.clock.sleep(seconds)
        self._happens()


def test_who_joins_a_running_one_waits_for_it(
    flow_run: Runs, lake: DataLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = flow_run(Running())
    half_way(lake, first)

    def ends() -> None:
        close_refresh.fn(lake, CAMPAIGN, first, first, RESULT)
        becomes(first, Completed())

    Waiting(monkeypatch, ends)
    joined = claim(lake, flow_run(Running()))
    assert (joined.refresh, joined.outcome, joined.result) == (None, "Joined", RESULT)
    assert "has finished" in joined.said


@pytest.mark.parametrize("state", [Failed(), Crashed(), Cancelled()], ids=lambda one: one.name)
def test_who_joins_one_that_dies_continues_it(
    flow_run: Runs, lake: DataLake, monkeypatch: pytest.MonkeyPatch, state: State[Any]
) -> None:
    first, second = flow_run(Running()), flow_run(Running())
    half_way(lake, first)
    Waiting(monkeypatch, lambda: becomes(first, state))
    assert claim(lake, second).refresh == first
    # From now on it is the second one's, also when the first is retried.
    becomes(first, Running())
    assert claim(lake, first, "skip").refresh is None
    assert claim(lake, second).refresh == first


def test_who_joins_one_that_gives_up_begins_anew(
    flow_run: Runs, lake: DataLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = flow_run(Running()), flow_run(Running())
    claim(lake, first)
    Waiting(monkeypatch, lambda: release_refresh.fn(lake, CAMPAIGN, first, first))
    assert begun_by(claim(lake, second), second)


def test_nobody_waits_for_ever(
    flow_run: Runs, lake: DataLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = flow_run(Running())
    half_way(lake, first)
    waiting = Waiting(monkeypatch, lambda: None)
    with pytest.raises(RefreshOpen, match=f"{first.id}, Running, still had .* after 5 minutes"):
        claim(lake, flow_run(Running()), minutes=5)
    assert waiting.clock.now == 300


@pytest.mark.parametrize("overlap", ["skip", "fail"])
def test_one_left_half_way_is_open(flow_run: Runs, lake: DataLake, overlap: Overlap) -> None:
    first = flow_run(Crashed())
    half_way(lake, first)
    second = flow_run(Running())
    if overlap == "skip":
        assert "which has ended half-way" in claim(lake, second, overlap).said
    else:
        with pytest.raises(RefreshOpen, match="which has ended half-way"):
            claim(lake, second, overlap)
    assert claim(lake, first).refresh == first


def test_of_one_that_died_before_anything_was_made_of_its_list_nothing_stays(
    flow_run: Runs, lake: DataLake
) -> None:
    first, second = flow_run(Crashed()), flow_run(Running())
    claim(lake, first)
    lake.files.write(f"{folder_of(first)}/extracted.parquet", b"a list")
    assert begun_by(claim(lake, second, "fail"), second)
    assert not staged(lake, first)


def test_a_process_that_is_gone_does_not_keep_a_campaign(
    flow_run: Runs, lake: DataLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = flow_run(Running())
    half_way(lake, first)
    place = Register(lake.files, "campaign_id=a%2Fcampaign")
    number, entry = place.newest()
    assert entry is not None
    assert (entry.host, entry.pid) == (socket.gethostname(), os.getpid())
    # What the largest process id of the system is, no process has.
    largest = int(Path("/proc/sys/kernel/pid_max").read_text())
    place.add(number + 1, entry.model_copy(update={"pid": largest}))
    assert claim(lake, flow_run(Running())).refresh == first
    number, entry = place.newest()
    assert entry is not None
    elsewhere = {"pid": largest, "host": "elsewhere", "flow_run": first.id}
    place.add(number + 1, entry.model_copy(update=elsewhere))
    assert claim(lake, flow_run(Running()), "skip").refresh is None


def test_the_init_process_is_alive(flow_run: Runs, lake: DataLake) -> None:
    first = flow_run(Running())
    init = Entry(refresh=first, flow_run=first.id, host=socket.gethostname(), pid=1)
    Register(lake.files, "campaign_id=a%2Fcampaign").add(1, init)
    assert claim(lake, flow_run(Running()), "skip").refresh is None


def test_a_flow_run_that_was_deleted_does_not_keep_a_campaign(
    flow_run: Runs, lake: DataLake
) -> None:
    unknown = Refresh(id=str(uuid4()), started=datetime(2026, 11, 22, tzinfo=UTC))
    half_way(lake, unknown)
    assert claim(lake, flow_run(Running())).refresh == unknown


def test_what_has_ended_is_not_done_again(flow_run: Runs, lake: DataLake) -> None:
    me, next_one = flow_run(Running()), flow_run(Running())
    half_way(lake, me)
    close_refresh.fn(lake, CAMPAIGN, me, me, RESULT)
    assert not staged(lake, me)
    # Killed before it could clear up.
    lake.files.write(f"{folder_of(me)}/kept", b"")
    again = claim(lake, me)
    assert (again.refresh, again.outcome, again.result) == (None, "Completed", RESULT)
    assert not staged(lake, me)
    lake.files.write(f"{folder_of(me)}/kept", b"")
    assert begun_by(claim(lake, next_one), next_one)
    assert not staged(lake, me)


def test_a_flow_run_that_comes_back_after_others_begins_anew(
    flow_run: Runs, lake: DataLake
) -> None:
    first, second, third = (flow_run(Crashed()) for _ in range(3))
    half_way(lake, first)
    assert claim(lake, second).refresh == first
    close_refresh.fn(lake, CAMPAIGN, second, first, RESULT)
    known = claim(lake, first)
    assert (known.refresh, known.result) == (None, RESULT)
    claimed = claim(lake, third).refresh
    assert claimed is not None
    close_refresh.fn(lake, CAMPAIGN, third, claimed, RESULT)
    again = claim(lake, first)
    assert begun_by(again, first)
    assert again.refresh != first


def test_what_cannot_be_continued_says_so(flow_run: Runs, lake: DataLake) -> None:
    me = flow_run(Running())
    half_way(lake, me)
    close_refresh.fn(lake, CAMPAIGN, me, me, problem="Run 2 failed: reason.")
    with pytest.raises(RefreshEnded, match="Run 2 failed: reason. It cannot be continued"):
        claim(lake, me)
    other = flow_run(Running())
    assert begun_by(claim(lake, other, "fail"), other)


def test_nobody_closes_what_another_one_has_taken_over(flow_run: Runs, lake: DataLake) -> None:
    first, second = flow_run(Crashed()), flow_run(Running())
    half_way(lake, first)
    claim(lake, second)
    close_refresh.fn(lake, CAMPAIGN, first, first, RESULT)
    assert staged(lake, first)
    assert claim(lake, second).refresh == first


def test_an_old_list_goes_unless_its_refresh_is_alive(flow_run: Runs, lake: DataLake) -> None:
    me = flow_run(Suspended())
    half_way(lake, me)
    place, folder = campaign_partition(CAMPAIGN), folder_of(me)
    (entry,) = open_refreshes(lake.files).values()
    assert is_alive(entry)
    assert not expire(lake.files, place, folder)
    assert expire(lake.files, place, "staging/of-nobody")
    becomes(me, Crashed())
    assert not is_alive(entry)
    assert expire(lake.files, place, folder)
    assert open_refreshes(lake.files) == {}
    assert expire(lake.files, place, folder)
    with pytest.raises(RefreshEnded, match="The customer list of refresh .* was removed"):
        claim(lake, me)


def test_who_is_late_does_not_take_a_number_that_is_past(flow_run: Runs, lake: DataLake) -> None:
    place = Register(lake.files, "campaign_id=C")
    late, quick = (
        Entry(refresh=run, flow_run=run.id, host="h", pid=1)
        for run in (flow_run(Running()), flow_run(Running()))
    )
    assert [place.add(number, quick) for number in (1, 2, 3)] == [True] * 3
    assert not place.add(2, late)
    assert place.newest() == (3, quick)
    assert not place.add(3, late)


def test_of_many_at_one_moment_one_proceeds(flow_run: Runs, lake: DataLake) -> None:
    many = [flow_run(Running()) for _ in range(8)]

    def one(me: Refresh) -> Claim:
        with disable_run_logger():
            return claim(lake, me, "skip")

    with ThreadPoolExecutor(len(many)) as pool:
        claims = list(pool.map(one, many))
    assert [each.refresh is not None for each in claims].count(True) == 1
    assert [each.outcome for each in claims].count("Skipped") == 7
