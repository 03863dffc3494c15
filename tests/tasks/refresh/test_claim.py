"""Claims on a campaign: the decision by a table, then flow runs of a real server and lake."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.logging import disable_run_logger
from prefect.states import Completed, Crashed, Failed, Running, Suspended
from pydantic import SecretStr

from blocks import DataLake, NudgescribeAccount
from blocks.storage.errors import LakeUnreachable, TooNew
from blocks.storage.files import Files, InTheWay
from nudgescribe.bases import Frozen
from nudgescribe.retry import PollPolicy
from tasks.journal.entries import Journal, JournalDamaged, Series, Step
from tasks.journal.owners import UNKNOWN, Owner
from tasks.journal.refresh import Problem, Refresh
from tasks.refresh import claim as claims
from tasks.refresh.claim import (
    Begin,
    Claim,
    Continue,
    Decision,
    Finished,
    Joined,
    NothingToAbandon,
    NothingToPublish,
    Over,
    Overlap,
    RefreshEnded,
    RefreshOpen,
    Refuse,
    StillRunning,
    Wait,
    cannot_go_on,
    claim_campaign,
    claim_open_refresh,
    decide,
    end_abandoned,
    end_refresh,
    knows_flow_run,
    record_problem,
)
from tasks.refresh.history import History, expire, is_alive, open_refreshes
from tasks.refresh.report import RefreshResult
from tasks.refresh.standing import Ended, Standing
from tests.support.clock import Clock

ACCOUNT = NudgescribeAccount(
    email="a@example.com",
    password=SecretStr("password"),
    api_key=SecretStr("key"),
    api_code=SecretStr("code"),
)
CAMPAIGN = "a/campaign"
PARTITION = "campaign_id=a%2Fcampaign"
STARTED = datetime(2026, 11, 22, tzinfo=UTC)
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
COMPLETED = Ended(outcome="completed", result=RESULT)


class Note(Frozen):
    """An entry of which only matters that it is there."""


Runs = Callable[[State[Any]], Refresh]


def standing(refresh: str, flow_run: str, **more: Any) -> Standing:
    owner = Owner(flow_run=flow_run, host="h", pid=1)
    return Standing(number=1, refresh=Refresh(id=refresh, started=STARTED), owner=owner, **more)


def ended(outcome: Any) -> dict[str, Any]:
    result, problem = (RESULT, "") if outcome == "completed" else (None, "why")
    return {"ended": Ended(outcome=outcome, result=result, problem=problem)}


KEPT: dict[str, Any] = {"kept": True}
OWN = standing("own", "own")
OWN_RELEASED = standing("own", "own", **ended("released"))
OWN_FINISHED = standing("own", "own", **ended("completed"))
OWN_FAILED = standing("own", "own", **ended("failed"))
OWN_ABANDONED = standing("own", "other", **ended("abandoned"))
OWN_FINISHED_BY_OTHER = standing("own", "other", **ended("completed"))
OWN_TAKEN_OVER = standing("own", "other", **KEPT)
OWN_SECOND_FINISHED = standing("own-7", "other", **ended("completed"))
OTHER_CONTINUED = standing("other", "own")
LAST = Owner(flow_run="own", host="h", pid=1, gives_up=True)
OTHER_GIVEN_UP = standing("other", "own", **KEPT).model_copy(update={"owner": LAST})
THIRD = Owner(flow_run="third", host="h", pid=1, gives_up=True)
OTHER_GIVEN_UP_BY_THIRD = standing("other", "own", **KEPT).model_copy(update={"owner": THIRD})
OTHER = standing("other", "other")
OTHER_KEPT = standing("other", "other", **KEPT)
OTHER_KEPT_AND_FAILED = standing("other", "other", **KEPT, failed=True)
OTHER_INITIATED_AND_FAILED = standing("other", "other", **KEPT, initiated=True, failed=True)
OTHER_RELEASED = standing("other", "other", **ended("released"))
OTHER_FINISHED = standing("other", "other", **ended("completed"))
OTHER_FAILED = standing("other", "other", **ended("failed"))
OTHER_ABANDONED = standing("other", "other", **ended("abandoned"))
ALL: tuple[Overlap, ...] = ("skip", "join", "fail")
JOIN: tuple[Overlap, ...] = ("join",)


@pytest.mark.parametrize(
    ("newest", "overlaps", "owner", "waited_for", "decision"),
    [
        (None, ALL, None, None, Begin()),
        # The claimant's own refresh, or one that it has continued.
        (OWN, ALL, None, None, Continue(OWN)),
        (OTHER_CONTINUED, ALL, None, None, Continue(OTHER_CONTINUED)),
        (OTHER_GIVEN_UP, ALL, None, None, Begin(OTHER_GIVEN_UP)),
        (OWN_RELEASED, ALL, None, None, Begin(OWN_RELEASED)),
        (OWN_FINISHED, ALL, None, None, Finished(OWN_FINISHED)),
        (OWN_FINISHED_BY_OTHER, ALL, None, None, Finished(OWN_FINISHED_BY_OTHER)),
        (OWN_SECOND_FINISHED, ALL, None, None, Finished(OWN_SECOND_FINISHED)),
        (OWN_FAILED, ALL, None, None, Over("why")),
        (OWN_ABANDONED, ALL, None, None, Over("why")),
        # A refresh of another flow run that has ended.
        (OTHER_RELEASED, ALL, None, None, Begin(OTHER_RELEASED)),
        (OTHER_RELEASED, ALL, None, "other", Begin(OTHER_RELEASED)),
        (OTHER_FAILED, ALL, None, "other", Begin(OTHER_FAILED)),
        (OTHER_ABANDONED, ALL, None, "other", Begin(OTHER_ABANDONED)),
        (OTHER_FINISHED, ALL, None, None, Begin(OTHER_FINISHED)),
        (OTHER_FINISHED, ALL, None, "another", Begin(OTHER_FINISHED)),
        (OTHER_FINISHED, JOIN, None, "other", Joined(OTHER_FINISHED)),
        # An open refresh whose flow run has ended.
        (OTHER, ALL, None, None, Begin(OTHER)),
        (OTHER_KEPT_AND_FAILED, ALL, None, None, Begin(OTHER_KEPT_AND_FAILED)),
        (OTHER_GIVEN_UP_BY_THIRD, ALL, None, None, Begin(OTHER_GIVEN_UP_BY_THIRD)),
        (OTHER_INITIATED_AND_FAILED, JOIN, None, None, Continue(OTHER_INITIATED_AND_FAILED)),
        (OTHER_KEPT, JOIN, None, None, Continue(OTHER_KEPT)),
        (OTHER_KEPT, JOIN, None, "other", Continue(OTHER_KEPT)),
        (OTHER_KEPT, ("skip",), None, None, Refuse("skip")),
        (OTHER_KEPT, ("fail",), None, None, Refuse("fail")),
        (OWN_TAKEN_OVER, ALL, None, None, Continue(OWN_TAKEN_OVER)),
        # An open refresh whose flow run works on it, or may do so.
        (OTHER, JOIN, "Running", None, Wait(OTHER)),
        (OTHER_KEPT, JOIN, "Running", "other", Wait(OTHER_KEPT)),
        (OTHER, JOIN, UNKNOWN, None, Wait(OTHER)),
        (OTHER, JOIN, "Suspended", None, Joined(OTHER)),
        (OTHER_GIVEN_UP_BY_THIRD, JOIN, "Running", None, Wait(OTHER_GIVEN_UP_BY_THIRD)),
        (OTHER, ("skip",), "Running", None, Refuse("skip")),
        (OTHER, ("skip",), "Suspended", None, Refuse("skip")),
        (OTHER, ("skip",), UNKNOWN, None, Refuse("skip")),
        (OTHER, ("fail",), "Running", None, Refuse("fail")),
        (OTHER, ("fail",), "Suspended", None, Refuse("fail")),
        (OTHER, ("fail",), UNKNOWN, None, Refuse("fail")),
        (OWN_TAKEN_OVER, ("skip",), "Running", None, Refuse("skip")),
    ],
)
def test_decision_follows_from_standing_owner_and_overlap(
    newest: Standing | None,
    overlaps: tuple[Overlap, ...],
    owner: str | None,
    waited_for: str | None,
    decision: Decision,
) -> None:
    claimant = Refresh(id="own", started=STARTED)
    for overlap in overlaps:
        assert decide(newest, claimant, overlap, owner, waited_for) == decision


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


def state_of(run: Refresh) -> str | None:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run.id).state
    return state.name if state else None


def set_state(run: Refresh, state: State[Any]) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, state, force=True)


@pytest.fixture
def lake(local: Any) -> DataLake:
    return local.lake


def claim(
    lake: DataLake, claimant: Refresh, overlap: Overlap = "join", minutes: float = 1
) -> Claim:
    return claim_campaign.fn(ACCOUNT, lake, CAMPAIGN, claimant, overlap, minutes)


def keep(lake: DataLake, refresh: Refresh) -> None:
    """Does what a refresh does once its list has passed all checks."""
    Journal(lake.files, refresh.journal).create(Step.COMPARED, Note())


def claim_and_keep(lake: DataLake, run: Refresh) -> Refresh:
    refresh = claim(lake, run).refresh
    assert refresh is not None
    keep(lake, refresh)
    return refresh


def close(lake: DataLake, claimant: Refresh, refresh: Refresh) -> None:
    end_refresh.fn(lake, CAMPAIGN, claimant, refresh, COMPLETED)


def release(lake: DataLake, claimant: Refresh, refresh: Refresh, retryable: bool = False) -> None:
    problem = Problem(attempt=0, error="SomeError", problem="why", retryable=retryable)
    record_problem.fn(lake, CAMPAIGN, claimant, refresh, problem)


def begun_by(claim: Claim, run: Refresh) -> bool:
    return claim.refresh is not None and claim.refresh.id.startswith(run.id)


def worked_on(claim: Claim) -> str | None:
    return claim.refresh.id if claim.refresh else None


def staged(lake: DataLake, run: Refresh) -> bool:
    return lake.files.exists(run.staging)


def stage(lake: DataLake, run: Refresh) -> None:
    lake.files.write(f"{run.staging}/extracted.parquet", b"a list")


def test_claim_stays_with_flow_run_when_retried(flow_run: Runs, lake: DataLake) -> None:
    own = flow_run(Running())
    assert [worked_on(claim(lake, own)) for _ in range(3)] == [own.id] * 3
    journal = History(lake.files, PARTITION).journal(1)
    assert journal.contents().newest == {}  # the process is the same


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
    with pytest.raises(RefreshOpen, match=f"{owner}.*abandon-refresh.*options.overlap = join"):
        claim(lake, second, "fail")
    assert worked_on(claim(lake, first)) == first.id


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
        policy = PollPolicy(clock=lambda: self.clock.now, sleep=self.sleep)
        monkeypatch.setattr(claims, "POLL_POLICY", policy)

    def sleep(self, seconds: float) -> None:
        self.clock.sleep(seconds)
        self._happens()


def test_claim_returns_result_when_awaited_owner_finishes(
    flow_run: Runs, lake: DataLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = flow_run(Running())
    refresh = claim_and_keep(lake, first)

    def finish() -> None:
        close(lake, first, refresh)
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
    assert worked_on(claim(lake, second)) == first.id
    # From now on the second flow run owns it, also when the first is retried.
    set_state(first, Running())
    assert claim(lake, first, "skip").refresh is None
    assert worked_on(claim(lake, second)) == first.id


def test_claim_begins_when_awaited_owner_releases(
    flow_run: Runs, lake: DataLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = flow_run(Running()), flow_run(Running())
    refresh = claim(lake, first).refresh
    assert refresh is not None
    Waiting(monkeypatch, lambda: release(lake, first, refresh))
    assert begun_by(claim(lake, second), second)


@pytest.mark.parametrize("server", ["this", "another"])
def test_claim_is_refused_when_owner_outlasts_the_wait(
    flow_run: Runs, lake: DataLake, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    first, known = flow_run(Running()), "Running"
    if server == "another":
        own = claims.this_process
        elsewhere = {"server": "another", "server_url": "http://other.example/api"}
        monkeypatch.setattr(claims, "this_process", lambda id: own(id).model_copy(update=elsewhere))
        known = "known only to Prefect's server http://other.example/api"
    claim_and_keep(lake, first)
    monkeypatch.undo()
    waiting = Waiting(monkeypatch, lambda: None)
    with pytest.raises(RefreshOpen, match=f"{first.id}, {known}, .* after 5 minutes"):
        claim(lake, flow_run(Running()), minutes=5)
    assert waiting.clock.now == 300
    assert known in claim(lake, flow_run(Running()), "skip").message


def test_claim_removes_list_of_dead_owner_that_kept_none(flow_run: Runs, lake: DataLake) -> None:
    first, second = flow_run(Crashed()), flow_run(Running())
    claim(lake, first)
    stage(lake, first)
    assert begun_by(claim(lake, second, "fail"), second)
    assert not staged(lake, first)
    assert History(lake.files, PARTITION).journal(1).find(Step.ENDED, Ended) is not None


def test_claim_removes_what_a_finished_refresh_left_in_staging(
    flow_run: Runs, lake: DataLake
) -> None:
    own, next_one = flow_run(Running()), flow_run(Running())
    close(lake, own, claim_and_keep(lake, own))
    stage(lake, own)  # it was killed before the removal
    again = claim(lake, own)
    assert (again.refresh, again.outcome, again.result) == (None, "Completed", RESULT)
    assert not staged(lake, own)
    stage(lake, own)
    assert begun_by(claim(lake, next_one), next_one)
    assert not staged(lake, own)


def test_retry_returns_what_others_have_finished_however_many_refreshes_came_since(
    flow_run: Runs, lake: DataLake
) -> None:
    first, second, third = flow_run(Crashed()), flow_run(Crashed()), flow_run(Crashed())
    close(lake, first, claim_and_keep(lake, first))
    refresh = claim_and_keep(lake, second)
    assert refresh.id == f"{second.id}-1"
    assert worked_on(claim(lake, third)) == refresh.id
    close(lake, third, refresh)
    assert claim(lake, second).result == RESULT
    fourth = flow_run(Running())
    close(lake, fourth, claim_and_keep(lake, fourth))
    assert claim(lake, second).result == RESULT


def test_previous_refresh_is_not_ended_when_its_flow_run_has_come_back(
    flow_run: Runs, lake: DataLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = flow_run(Crashed()), flow_run(Running())
    begun = claim(lake, first).refresh
    assert begun is not None
    real, looks = claims.owner_state, list[str | None]()

    def look(owner: Owner) -> str | None:
        looks.append(real(owner))
        if len(looks) == 1:  # meanwhile the first flow run is retried, elsewhere
            history = History(lake.files, PARTITION)
            standing = history.newest()
            assert standing is not None
            set_state(first, Running())
            elsewhere = {"machine": "another", "pid": 2}
            again = claims.this_process(first.id).model_copy(update=elsewhere)
            assert history.take_over(standing, again)
        return looks[-1]

    monkeypatch.setattr(claims, "owner_state", look)
    assert claim(lake, second, "skip").outcome == "Skipped"
    assert looks == [None, "Running"]


def test_end_does_nothing_when_another_flow_run_owns_the_refresh(
    flow_run: Runs, lake: DataLake
) -> None:
    first, second = flow_run(Crashed()), flow_run(Running())
    refresh = claim_and_keep(lake, first)
    stage(lake, refresh)
    claim(lake, second)
    close(lake, first, refresh)
    release(lake, first, refresh)
    assert staged(lake, refresh)
    assert worked_on(claim(lake, second)) == first.id


# ---- problems ---------------------------------------------------------------------------------


def test_refresh_is_released_when_it_fails_before_anything_changes(
    flow_run: Runs, lake: DataLake
) -> None:
    own = flow_run(Running())
    refresh = claim(lake, own).refresh
    assert refresh is not None
    stage(lake, refresh)
    release(lake, own, refresh)
    assert not staged(lake, refresh)
    again = claim(lake, own)
    assert worked_on(again) == f"{own.id}-1"


def test_problem_that_does_not_pass_is_not_inherited_by_the_next_refresh(
    flow_run: Runs, lake: DataLake
) -> None:
    first = flow_run(Running())
    refresh = claim_and_keep(lake, first)
    release(lake, first, refresh, retryable=True)
    set_state(first, Crashed())
    second = flow_run(Crashed())
    assert worked_on(claim(lake, second)) == first.id
    release(lake, second, refresh)
    # Its own retry continues it, another flow run begins anew.
    assert worked_on(claim(lake, second)) == first.id
    third = flow_run(Running())
    assert begun_by(claim(lake, third), third)
    journal = History(lake.files, PARTITION).journal(1)
    number, problem = journal.newest(Series.PROBLEM, Problem)
    assert (number, problem) == (
        2,
        Problem(attempt=1, error="SomeError", problem="why", retryable=False),
    )


@pytest.mark.parametrize("struck", ["99-ended.json", "00000002/00-claimed.json"])
def test_refresh_given_up_by_a_hiccup_is_begun_anew(
    flow_run: Runs, lake: DataLake, monkeypatch: pytest.MonkeyPatch, struck: str
) -> None:
    first, second, third = flow_run(Running()), flow_run(Running()), flow_run(Running())
    release(lake, first, claim_and_keep(lake, first))
    set_state(first, Failed())
    real = Files.create

    def create(files: Files, path: str, *content: Any, **options: Any) -> None:
        if path.endswith(struck):
            raise LakeUnreachable(f"The lake was lost at {path}.")
        real(files, path, *content, **options)

    for claimant in (second, second, third):
        with monkeypatch.context() as patched:
            patched.setattr(Files, "create", create)
            with pytest.raises(LakeUnreachable):
                claim(lake, claimant, minutes=0)
        set_state(claimant, Crashed())
    # Whoever has come so far, or is the next, has a list of its own.
    assert begun_by(claim(lake, second), second)
    assert History(lake.files, PARTITION).newest_number() == 2


@pytest.mark.parametrize(("state", "anew"), [(Failed(), True), (Crashed(), False)])
def test_kept_list_is_not_inherited_when_the_note_of_a_problem_was_lost(
    flow_run: Runs, lake: DataLake, state: State[Any], anew: bool
) -> None:
    first, second = flow_run(Running()), flow_run(Running())
    claim_and_keep(lake, first)
    set_state(first, state)
    assert begun_by(claim(lake, second), second) == anew


# ---- abandoned --------------------------------------------------------------------------------


def abandon(lake: DataLake) -> Refresh | None:
    return end_abandoned.fn(lake, CAMPAIGN, "Ada", "the list was wrong")


@pytest.mark.parametrize("state", [Crashed(), Suspended()], ids=["crashed", "suspended"])
def test_abandoned_refresh_is_over_for_everybody(
    flow_run: Runs, lake: DataLake, state: State[Any]
) -> None:
    first, second = flow_run(state), flow_run(Running())
    refresh = claim_and_keep(lake, first)
    Journal(lake.files, refresh.journal).create(Step.INITIATED, Note())
    stage(lake, refresh)
    assert abandon(lake) == refresh
    assert not staged(lake, refresh)
    assert state_of(first) in ("Crashed", "Cancelled")
    with pytest.raises(RefreshEnded, match="abandoned by Ada: the list was wrong"):
        claim(lake, first)
    begun = claim(lake, second)
    assert begun_by(begun, second)
    assert begun.abandoned == "It was abandoned by Ada: the list was wrong"


def test_refresh_is_not_abandoned_while_it_runs_or_when_there_is_none(
    flow_run: Runs, lake: DataLake
) -> None:
    with pytest.raises(NothingToAbandon):
        abandon(lake)
    own = flow_run(Running())
    refresh = claim_and_keep(lake, own)
    with pytest.raises(StillRunning, match=f"{own.id} is Running.*Cancel it"):
        abandon(lake)
    close(lake, own, refresh)
    with pytest.raises(NothingToAbandon):
        abandon(lake)


def test_abandonment_that_was_killed_is_finished_by_its_retry(
    flow_run: Runs, lake: DataLake
) -> None:
    refresh = claim_and_keep(lake, flow_run(Crashed()))
    assert abandon(lake) == abandon(lake) == refresh
    with pytest.raises(NothingToAbandon):
        end_abandoned.fn(lake, CAMPAIGN, "Ada", "another reason")


def test_flow_run_is_known_to_the_lake_of_its_refresh_only(
    flow_run: Runs, lake: DataLake, tmp_path: Path
) -> None:
    first, second, third = flow_run(Crashed()), flow_run(Crashed()), flow_run(Running())

    def known(lake: DataLake) -> list[bool]:
        return [knows_flow_run.fn(lake, CAMPAIGN, run) for run in (first, second, third)]

    claim_and_keep(lake, first)
    claim(lake, second)
    assert known(lake) == [True, True, False]
    other = DataLake(root=str(tmp_path / "other"))
    claim(other, third)
    assert known(other) == [False, False, True]
    lake.files.write(f"refreshes/{PARTITION}/00000001/owner-0001.json", b"")
    assert known(lake) == [True, True, True]


@pytest.mark.parametrize(
    ("how", "over"), [("completed", False), ("failed", True), ("abandoned", True), (None, False)]
)
def test_flow_run_whose_refresh_was_ended_cannot_go_on(
    flow_run: Runs, lake: DataLake, how: Any, over: bool
) -> None:
    own = flow_run(Running())
    refresh = claim_and_keep(lake, own)
    if how:
        end_refresh.fn(lake, CAMPAIGN, own, refresh, ended(how)["ended"])
    assert cannot_go_on(lake, CAMPAIGN, own.id) == over


def test_flow_run_whose_journal_retention_has_removed_is_over(
    flow_run: Runs, lake: DataLake
) -> None:
    first, second = flow_run(Failed()), flow_run(Running())
    refresh = claim_and_keep(lake, first)
    end_refresh.fn(lake, CAMPAIGN, first, refresh, Ended(outcome="released"))
    assert not cannot_go_on(lake, CAMPAIGN, first.id)
    close(lake, second, claim_and_keep(lake, second))
    assert not cannot_go_on(lake, CAMPAIGN, first.id)
    lake.files.remove(refresh.journal)
    assert cannot_go_on(lake, CAMPAIGN, first.id)
    with pytest.raises(RefreshEnded, match="has had others since.*no longer has.*new refresh"):
        knows_flow_run.fn(lake, CAMPAIGN, first)
    assert knows_flow_run.fn(lake, CAMPAIGN, second)


@pytest.mark.parametrize("odd", ["campaign_id=odd", "campaign_id=odd/00000001"])
def test_flow_run_whose_journals_cannot_be_read_is_retried(
    flow_run: Runs, lake: DataLake, odd: str
) -> None:
    own = flow_run(Failed())
    loop = Path(lake.files.root, "refreshes", odd)
    loop.parent.mkdir(parents=True)
    loop.symlink_to(loop)
    assert not cannot_go_on(lake, "odd", own.id)
    assert not cannot_go_on(lake, "x" * 300, own.id)


def test_publish_is_refused_without_an_open_refresh(flow_run: Runs, lake: DataLake) -> None:
    own = flow_run(Running())
    with pytest.raises(NothingToPublish):
        claim_open_refresh.fn(ACCOUNT, lake, CAMPAIGN, own, 1)
    assert lake.files.list_names("refreshes") == []
    first = flow_run(Crashed())
    claim_and_keep(lake, first)
    assert worked_on(claim_open_refresh.fn(ACCOUNT, lake, CAMPAIGN, own, 1)) == first.id


# ---- what lies in the lake --------------------------------------------------------------------


def test_expiry_releases_a_refresh_unless_its_owner_is_alive_or_its_rerun_runs(
    flow_run: Runs, lake: DataLake
) -> None:
    def expired(folder: str) -> bool:
        return expire(lake.files, PARTITION, folder, lambda _: False)

    own = flow_run(Suspended())
    refresh = claim_and_keep(lake, own)
    (newest,) = open_refreshes(lake.files).values()
    assert is_alive(newest)
    assert not expired(refresh.staging)
    assert expired("staging/of-nobody")
    set_state(own, Crashed())
    assert not is_alive(newest)
    Journal(lake.files, refresh.journal).create(Step.INITIATED, Note())
    assert expired(refresh.staging)
    assert [*open_refreshes(lake.files)] == [PARTITION]
    lake.files.remove(f"{refresh.journal}/{Step.INITIATED}.json")
    assert expired(refresh.staging)
    assert open_refreshes(lake.files) == {}
    assert worked_on(claim(lake, own)) == f"{own.id}-1"


def test_foreign_files_are_passed_over(flow_run: Runs, lake: DataLake) -> None:
    own = flow_run(Running())
    claim_and_keep(lake, own)
    folder = Path(lake.files.root, "refreshes", PARTITION)
    for name in ("notes.txt", ".DS_Store", "00000009.json.bak", ".nfs0001"):
        (folder / name).write_text("x")
        (folder / "00000001" / name).write_text("x")
    for name in ("00000007", "old"):
        (folder / name).mkdir()
        (folder / name / "notes.txt").write_text("x")
    (folder.parent / "notes.txt").write_text("x")
    assert worked_on(claim(lake, own)) == own.id
    assert [*open_refreshes(lake.files)] == [PARTITION]
    assert claim(lake, flow_run(Running()), "skip").outcome == "Skipped"


@pytest.mark.parametrize("damaged", ["00-claimed.json", "owner-0001.json", "problem-0001.json"])
def test_damaged_journal_concerns_its_campaign_and_can_be_abandoned(
    flow_run: Runs, lake: DataLake, damaged: str
) -> None:
    own, other = flow_run(Running()), flow_run(Running())
    claim_and_keep(lake, own)
    lake.files.write(f"refreshes/{PARTITION}/00000001/{damaged}", b"")
    claim_campaign.fn(ACCOUNT, lake, "another", other, "join", 1)
    with pytest.raises(JournalDamaged, match=f"00000001/{damaged}.*abandon-refresh"):
        claim(lake, other)
    opened = open_refreshes(lake.files)
    assert isinstance(opened[PARTITION], JournalDamaged)
    assert isinstance(opened["campaign_id=another"], Standing)
    assert abandon(lake) is None
    assert begun_by(claim(lake, other), other)


@pytest.mark.parametrize("damaged", ["00000001/99-ended.json", "schema_version.json"])
def test_damaged_end_or_fence_stops_nobody(flow_run: Runs, lake: DataLake, damaged: str) -> None:
    own, other = flow_run(Running()), flow_run(Running())
    close(lake, own, claim_and_keep(lake, own))
    lake.files.write(f"refreshes/{PARTITION}/{damaged}", b"")
    assert begun_by(claim(lake, other), other)


def test_damaged_end_is_named_to_whoever_asks_for_its_refresh(
    flow_run: Runs, lake: DataLake
) -> None:
    own, other = flow_run(Suspended()), flow_run(Running())
    claim_and_keep(lake, own)
    ended = f"refreshes/{PARTITION}/00000001/99-ended.json"
    lake.files.write(ended, b"")
    told = rf"{ended} is empty, cut off or damaged. If it is not, remove that file"
    with pytest.raises(NothingToPublish, match=told):
        claim_open_refresh.fn(ACCOUNT, lake, CAMPAIGN, other, 1)
    with pytest.raises(NothingToAbandon, match=told):
        abandon(lake)
    with pytest.raises(RefreshEnded, match=f"{ended} is empty.*Start a new refresh"):
        claim(lake, own)
    assert isinstance(open_refreshes(lake.files)[PARTITION], JournalDamaged)
    lake.files.remove(ended)
    assert worked_on(claim(lake, own)) == own.id
    lake.files.write(ended, b"")
    assert f"{ended} is empty" in claim(lake, other).abandoned


@pytest.mark.parametrize("name", ["", "/schema_version.json", "/00000001.json"])
def test_what_the_store_does_not_give_out_concerns_its_campaign(
    flow_run: Runs, lake: DataLake, name: str
) -> None:
    own = flow_run(Running())
    claim_campaign.fn(ACCOUNT, lake, "another", own, "join", 1)
    odd = Path(lake.files.root, f"refreshes/campaign_id=odd{name}")
    odd.parent.mkdir(exist_ok=True)
    odd.symlink_to(odd)
    opened = open_refreshes(lake.files)
    assert isinstance(opened["campaign_id=another"], Standing)
    if name == "/schema_version.json":
        assert "campaign_id=odd" not in opened
    else:
        assert isinstance(opened["campaign_id=odd"], JournalDamaged)
        with pytest.raises(JournalDamaged, match=f"refreshes/campaign_id=odd{name} cannot be read"):
            claim_campaign.fn(ACCOUNT, lake, "odd", own, "join", 1)


def test_file_in_place_of_a_journal_is_named(flow_run: Runs, lake: DataLake) -> None:
    own = flow_run(Running())
    close(lake, own, claim_and_keep(lake, own))
    file = f"refreshes/{PARTITION}/00000002"
    lake.files.write(file, b"")
    other = flow_run(Running())
    with pytest.raises(InTheWay, match=f"{file} is a file where a folder belongs.*move it away"):
        claim(lake, other)
    assert open_refreshes(lake.files) == {}
    lake.files.remove(file)
    assert begun_by(claim(lake, other), other)


def test_lake_that_cannot_be_reached_is_no_damage(
    lake: DataLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.files.write(f"refreshes/{PARTITION}/00000001/00-claimed.json", b"")

    def lost(*_: object, **__: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(type(lake.files.fs), "cat_file", lost)
    with pytest.raises(LakeUnreachable):
        open_refreshes(lake.files)


def test_damaged_entry_of_version_01_can_be_abandoned(flow_run: Runs, lake: DataLake) -> None:
    lake.files.write(f"refreshes/{PARTITION}/00000001.json", b"")
    own = flow_run(Running())
    with pytest.raises(JournalDamaged, match="00000001.json"):
        claim(lake, own)
    assert abandon(lake) is None
    assert begun_by(claim(lake, own), own)


def test_entry_that_is_a_folder_is_named(flow_run: Runs, lake: DataLake) -> None:
    own = flow_run(Running())
    lake.files.write(f"refreshes/{PARTITION}/00000001/00-claimed.json/x", b"")
    with pytest.raises(JournalDamaged, match=r"00-claimed\.json cannot be read"):
        claim(lake, own)
    assert isinstance(open_refreshes(lake.files)[PARTITION], JournalDamaged)
    assert abandon(lake) is None
    assert begun_by(claim(lake, own), own)


def test_journal_without_its_first_entry_is_damaged(flow_run: Runs, lake: DataLake) -> None:
    own = flow_run(Running())
    claim_and_keep(lake, own)
    lake.files.remove(f"refreshes/{PARTITION}/00000001/00-claimed.json")
    with pytest.raises(JournalDamaged, match="has no 00-claimed"):
        claim(lake, own)


def test_campaign_of_a_later_version_is_left_alone(flow_run: Runs, lake: DataLake) -> None:
    own = flow_run(Running())
    claim(lake, own)
    fence = f"refreshes/{PARTITION}/schema_version.json"
    newer = lake.files.read(fence).replace(b'"schema_version": 2', b'"schema_version": 3')
    lake.files.write(fence, newer)
    with pytest.raises(TooNew, match="schema_version.json.*update this one"):
        claim(lake, own)
    assert isinstance(open_refreshes(lake.files)[PARTITION], TooNew)


def test_refresh_of_a_past_number_is_not_begun(flow_run: Runs, lake: DataLake) -> None:
    history = History(lake.files, PARTITION)
    for _ in range(3):
        own = flow_run(Running())
        refresh = claim(lake, own).refresh
        assert refresh is not None
        close(lake, own, refresh)
    lake.files.remove(f"refreshes/{PARTITION}/00000002")
    first = history.journal(1).find(Step.CLAIMED, claims.Claimed)
    assert first is not None
    assert not history.begin(2, first)
    assert not history.begin(3, first)
    newest = history.newest()
    assert newest is not None
    assert newest.number == 3


def test_one_of_many_claims_wins_when_they_race(flow_run: Runs, lake: DataLake) -> None:
    many = [flow_run(Running()) for _ in range(8)]

    def race(claimant: Refresh) -> Claim:
        with disable_run_logger():
            return claim(lake, claimant, "skip")

    with ThreadPoolExecutor(len(many)) as pool:
        claimed = list(pool.map(race, many))
    assert [each.refresh is not None for each in claimed].count(True) == 1
