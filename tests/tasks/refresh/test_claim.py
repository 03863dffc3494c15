"""Claims on a campaign: the decision by a table, then flow runs of a real server and lake."""

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
from prefect.states import Completed, Crashed, Running, Suspended

from blocks import DataLake
from blocks.storage.manifest import campaign_partition
from nudgescribe.retry import Pace
from tasks.journal.refresh import Refresh
from tasks.customers.staging import folder_of, keep_staged
from tasks.refresh import claim as claims
from tasks.refresh.claim import (
    Begin,
    Claim,
    Continue,
    Decision,
    Ended,
    Finished,
    Joined,
    Overlap,
    RefreshEnded,
    RefreshOpen,
    Refuse,
    Wait,
    claim_campaign,
    close_refresh,
    decide,
    release_refresh,
)
from tasks.refresh.register import Entry, Register, expire, is_alive, open_refreshes
from tests.support.clock import Clock
from tests.tasks.refresh.test_report import RESULT

CAMPAIGN = "a/campaign"
STARTED = datetime(2026, 11, 22, tzinfo=UTC)
Runs = Callable[[State[Any]], Refresh]


def entry(refresh: str, flow_run: str, **state: Any) -> Entry:
    return Entry(
        refresh=Refresh(id=refresh, started=STARTED), flow_run=flow_run, host="h", pid=1, **state
    )


CLOSED: dict[str, Any] = {"open": False}
OWN = entry("own", "own")
OWN_RELEASED = entry("own", "own", **CLOSED)
OWN_FINISHED = entry("own", "own", **CLOSED, result=RESULT)
OWN_FAILED = entry("own", "own", **CLOSED, problem="why")
OWN_FINISHED_BY_OTHER = entry("own", "other", **CLOSED, result=RESULT)
OWN_TAKEN_OVER = entry("own", "other")
OTHER_CONTINUED = entry("other", "own")
OTHER = entry("other", "other")
OTHER_RELEASED = entry("other", "other", **CLOSED)
OTHER_FINISHED = entry("other", "other", **CLOSED, result=RESULT)
OTHER_FAILED = entry("other", "other", **CLOSED, problem="why")
ALL: tuple[Overlap, ...] = ("skip", "join", "fail")
JOIN: tuple[Overlap, ...] = ("join",)


@pytest.mark.parametrize(
    ("newest", "overlaps", "owner", "kept", "waited_for", "decision"),
    [
        (None, ALL, None, False, None, Begin()),
        # The claimant's own refresh, or one that it has continued.
        (OWN, ALL, None, False, None, Continue(OWN)),
        (OWN_RELEASED, ALL, None, False, None, Continue(OWN_RELEASED)),
        (OWN_FINISHED, ALL, None, False, None, Finished(OWN_FINISHED)),
        (OWN_FAILED, ALL, None, False, None, Ended("why")),
        (OWN_FINISHED_BY_OTHER, ALL, None, False, None, Finished(OWN_FINISHED_BY_OTHER)),
        (OTHER_CONTINUED, ALL, None, False, None, Continue(OTHER_CONTINUED)),
        # A refresh of another flow run that has ended.
        (OTHER_RELEASED, ALL, None, False, None, Begin(OTHER.refresh)),
        (OTHER_RELEASED, ALL, None, False, "other", Begin(OTHER.refresh)),
        (OTHER_FAILED, ALL, None, False, "other", Begin(OTHER.refresh)),
        (OTHER_FINISHED, ALL, None, False, None, Begin(OTHER.refresh)),
        (OTHER_FINISHED, ALL, None, False, "another", Begin(OTHER.refresh)),
        (OTHER_FINISHED, JOIN, None, False, "other", Joined(OTHER_FINISHED)),
        # An open refresh whose flow run has ended.
        (OTHER, ALL, None, False, None, Begin(OTHER.refresh)),
        (OTHER, JOIN, None, True, None, Continue(OTHER)),
        (OTHER, JOIN, None, True, "other", Continue(OTHER)),
        (OTHER, ("skip",), None, True, None, Refuse("skip")),
        (OTHER, ("fail",), None, True, None, Refuse("fail")),
        (OWN_TAKEN_OVER, JOIN, None, True, None, Continue(OWN_TAKEN_OVER)),
        # An open refresh whose flow run works on it.
        (OTHER, JOIN, "Running", False, None, Wait(OTHER)),
        (OTHER, JOIN, "Running", True, "other", Wait(OTHER)),
        (OTHER, JOIN, "Suspended", False, None, Joined(OTHER)),
        (OTHER, ("skip",), "Running", False, None, Refuse("skip")),
        (OTHER, ("skip",), "Suspended", False, None, Refuse("skip")),
        (OTHER, ("fail",), "Running", False, None, Refuse("fail")),
        (OTHER, ("fail",), "Suspended", False, None, Refuse("fail")),
        (OWN_TAKEN_OVER, ("skip",), "Running", False, None, Refuse("skip")),
    ],
)
def test_decision_follows_from_entry_owner_and_overlap(
    newest: Entry | None,
    overlaps: tuple[Overlap, ...],
    owner: str | None,
    kept: bool,
    waited_for: str | None,
    decision: Decision,
) -> None:
    claimant = Refresh(id="own", started=STARTED)
    for overlap in overlaps:
        assert decide(newest, claimant, overlap, owner, kept, waited_for) == decision


@flow(name="campaign-refresh-stand-in")
def nothing() -> None: ...


@pytest.fixture
def flow_run(prefect_server: None) -> Runs:
    """Flow runs in a state, none of which does anything."""

    def create(state: State[Any]) -> Refresh:
        with get_client(sync_client=True) as client:
            created = client.create_flow_run(nothing, state=state)
        return Refresh(id=str(created.id), started=STARTED)

    return create


def set_state(run: Refresh, state: State[Any]) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, state, force=True)


@pytest.fixture
def lake(local: Any) -> DataLake:
    return local.lake


def claim(
    lake: DataLake, claimant: Refresh, overlap: Overlap = "join", minutes: float = 1
) -> Claim:
    return claim_campaign.fn(lake, CAMPAIGN, claimant, overlap, minutes)


def claim_and_keep(lake: DataLake, run: Refresh) -> None:
    claim(lake, run)
    keep_staged.fn(lake, run)


def close(lake: DataLake, claimant: Refresh, refresh: Refresh) -> None:
    close_refresh.fn(lake, CAMPAIGN, claimant, refresh, RESULT)


def begun_by(claim: Claim, run: Refresh) -> bool:
    return claim.refresh is not None and claim.refresh.id.startswith(run.id)


def staged(lake: DataLake, run: Refresh) -> bool:
    return lake.files.exists(folder_of(run))


@pytest.mark.parametrize(
    ("state", "owner"),
    [
        (Running(), "Running"),
        (Suspended(), "Suspended"),
        (Crashed(), "which has ended half-way"),
    ],
    ids=["running", "suspended", "crashed"],
)
def test_claim_names_owner_when_skipped_or_refused(
    flow_run: Runs, lake: DataLake, state: State[Any], owner: str
) -> None:
    first, second = flow_run(state), flow_run(Running())
    claim_and_keep(lake, first)
    skipped = claim(lake, second, "skip")
    assert (skipped.refresh, skipped.outcome) == (None, "Skipped")
    assert f"Flow run {first.id}, {owner}, has a refresh of campaign" in skipped.message
    with pytest.raises(RefreshOpen, match=f"{owner}.*options.overlap = join"):
        claim(lake, second, "fail")
    assert claim(lake, first).refresh == first


def test_claim_joins_suspended_owner_without_waiting(flow_run: Runs, lake: DataLake) -> None:
    first = flow_run(Suspended())
    claim_and_keep(lake, first)
    joined = claim(lake, flow_run(Running()))
    assert (joined.refresh, joined.outcome) == (None, "Joined")
    assert "is awaiting review; it continues automatically" in joined.message


class Waiting:
    """A clock on which something happens while a claimant waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
        self.clock = Clock()
        self._happens = happens
        pace = Pace(clock=lambda: self.clock.now, sleep=self.sleep)
        monkeypatch.setattr(claims, "PACE", pace)

    def sleep(self, seconds: float) -> None:
        self.clock.sleep(seconds)
        self._happens()


def test_claim_returns_result_when_awaited_owner_finishes(
    flow_run: Runs, lake: DataLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = flow_run(Running())
    claim_and_keep(lake, first)

    def finish() -> None:
        close(lake, first, first)
        set_state(first, Completed())

    Waiting(monkeypatch, finish)
    joined = claim(lake, flow_run(Running()))
    assert (joined.refresh, joined.outcome, joined.result) == (None, "Joined", RESULT)
    assert "has finished" in joined.message


def test_claim_continues_refresh_when_awaited_owner_dies(
    flow_run: Runs, lake: DataLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = flow_run(Running()), flow_run(Running())
    claim_and_keep(lake, first)
    Waiting(monkeypatch, lambda: set_state(first, Crashed()))
    assert claim(lake, second).refresh == first
    # From now on the second flow run owns it, also when the first is retried.
    set_state(first, Running())
    assert claim(lake, first, "skip").refresh is None
    assert claim(lake, second).refresh == first


def test_claim_begins_when_awaited_owner_releases(
    flow_run: Runs, lake: DataLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = flow_run(Running()), flow_run(Running())
    claim(lake, first)
    Waiting(monkeypatch, lambda: release_refresh.fn(lake, CAMPAIGN, first, first))
    assert begun_by(claim(lake, second), second)


def test_claim_is_refused_when_owner_outlasts_the_wait(
    flow_run: Runs, lake: DataLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = flow_run(Running())
    claim_and_keep(lake, first)
    waiting = Waiting(monkeypatch, lambda: None)
    with pytest.raises(RefreshOpen, match=f"{first.id}, Running, still had .* after 5 minutes"):
        claim(lake, flow_run(Running()), minutes=5)
    assert waiting.clock.now == 300


def test_claim_removes_list_of_dead_owner_that_kept_none(flow_run: Runs, lake: DataLake) -> None:
    first, second = flow_run(Crashed()), flow_run(Running())
    claim(lake, first)
    lake.files.write(f"{folder_of(first)}/extracted.parquet", b"a list")
    assert begun_by(claim(lake, second, "fail"), second)
    assert not staged(lake, first)


def test_owner_is_dead_when_its_process_is_gone(flow_run: Runs, lake: DataLake) -> None:
    first = flow_run(Running())
    claim_and_keep(lake, first)
    register = Register(lake.files, "campaign_id=a%2Fcampaign")
    number, newest = register.newest()
    assert newest is not None
    assert (newest.host, newest.pid) == (socket.gethostname(), os.getpid())
    # No process has the largest process id of the system.
    largest = int(Path("/proc/sys/kernel/pid_max").read_text())
    register.add(number + 1, newest.model_copy(update={"pid": largest}))
    assert claim(lake, flow_run(Running())).refresh == first
    number, newest = register.newest()
    assert newest is not None
    elsewhere = {"pid": largest, "host": "elsewhere", "flow_run": first.id}
    register.add(number + 1, newest.model_copy(update=elsewhere))
    assert claim(lake, flow_run(Running()), "skip").refresh is None


def test_owner_is_alive_when_its_process_is_another_users(flow_run: Runs, lake: DataLake) -> None:
    first = flow_run(Running())
    init = Entry(refresh=first, flow_run=first.id, host=socket.gethostname(), pid=1)
    Register(lake.files, "campaign_id=a%2Fcampaign").add(1, init)
    assert claim(lake, flow_run(Running()), "skip").refresh is None


def test_owner_is_dead_when_its_flow_run_was_deleted(flow_run: Runs, lake: DataLake) -> None:
    unknown = Refresh(id=str(uuid4()), started=STARTED)
    claim_and_keep(lake, unknown)
    assert claim(lake, flow_run(Running())).refresh == unknown


def test_claim_removes_what_a_finished_refresh_left_in_staging(
    flow_run: Runs, lake: DataLake
) -> None:
    own, next_one = flow_run(Running()), flow_run(Running())
    claim_and_keep(lake, own)
    close(lake, own, own)
    assert not staged(lake, own)
    # It was killed before the removal.
    lake.files.write(f"{folder_of(own)}/kept", b"")
    again = claim(lake, own)
    assert (again.refresh, again.outcome, again.result) == (None, "Completed", RESULT)
    assert not staged(lake, own)
    lake.files.write(f"{folder_of(own)}/kept", b"")
    assert begun_by(claim(lake, next_one), next_one)
    assert not staged(lake, own)


def test_claim_gets_a_new_id_when_flow_run_begins_again(flow_run: Runs, lake: DataLake) -> None:
    first, second = flow_run(Crashed()), flow_run(Crashed())
    claim_and_keep(lake, first)
    close(lake, first, first)
    claimed = claim(lake, second).refresh
    assert claimed is not None
    close(lake, second, claimed)
    again = claim(lake, first)
    assert begun_by(again, first)
    assert again.refresh != first


def test_close_does_nothing_when_another_flow_run_owns_the_refresh(
    flow_run: Runs, lake: DataLake
) -> None:
    first, second = flow_run(Crashed()), flow_run(Running())
    claim_and_keep(lake, first)
    claim(lake, second)
    close(lake, first, first)
    assert staged(lake, first)
    assert claim(lake, second).refresh == first


def test_expiry_ends_a_refresh_unless_its_owner_is_alive(flow_run: Runs, lake: DataLake) -> None:
    own = flow_run(Suspended())
    claim_and_keep(lake, own)
    partition, folder = campaign_partition(CAMPAIGN), folder_of(own)
    (newest,) = open_refreshes(lake.files).values()
    assert is_alive(newest)
    assert not expire(lake.files, partition, folder)
    assert expire(lake.files, partition, "staging/of-nobody")
    set_state(own, Crashed())
    assert not is_alive(newest)
    assert expire(lake.files, partition, folder)
    assert open_refreshes(lake.files) == {}
    assert expire(lake.files, partition, folder)
    with pytest.raises(RefreshEnded, match="list of refresh .* was removed.* cannot be continued"):
        claim(lake, own)


def test_register_refuses_a_number_that_is_past(lake: DataLake) -> None:
    register = Register(lake.files, "campaign_id=C")
    late, quick = entry("late", "late"), entry("quick", "quick")
    assert [register.add(number, quick) for number in (1, 2, 3)] == [True] * 3
    assert not register.add(2, late)
    assert register.newest() == (3, quick)
    assert not register.add(3, late)


def test_one_of_many_claims_wins_when_they_race(flow_run: Runs, lake: DataLake) -> None:
    many = [flow_run(Running()) for _ in range(8)]

    def race(claimant: Refresh) -> Claim:
        with disable_run_logger():
            return claim(lake, claimant, "skip")

    with ThreadPoolExecutor(len(many)) as pool:
        claimed = list(pool.map(race, many))
    assert [each.refresh is not None for each in claimed].count(True) == 1
    assert [each.outcome for each in claimed].count("Skipped") == 7
