"""The claim on a campaign: one open refresh at a time, whichever flow run works on it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from prefect import task
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from blocks import DataLake, NudgescribeAccount
from blocks.storage.errors import LakeError, LakeUnreachable
from blocks.storage.manifest import campaign_partition
from nudgescribe.bases import Frozen
from nudgescribe.errors import NudgeflowError
from nudgescribe.retry import PollPolicy, poll
from tasks.campaigns import CampaignRef
from tasks.customers.validate import Validated
from tasks.journal.entries import JournalDamaged, Series
from tasks.journal.history import record
from tasks.journal.owners import (
    SUSPENDED,
    UNKNOWN,
    cancel_suspended,
    has_failed,
    owner_state,
    this_process,
)
from tasks.journal.refresh import Claimed, Problem, Refresh
from tasks.policies import RETRIED
from tasks.refresh.history import History
from tasks.refresh.report import RefreshResult
from tasks.refresh.rerun import note_started_rerun
from tasks.refresh.standing import Ended, Standing
from tasks.ui.commands import abandon_command

POLL_POLICY = PollPolicy(longest_wait=30)

Overlap = Literal["skip", "join", "fail"]


class Claim(Frozen):
    """The refresh to work on; without one, the state for the flow run to end in, with a message
    and the result of the refresh that another flow run or an earlier try has finished.

    `abandoned` tells who abandoned the refresh before, and why.
    """

    refresh: Refresh | None = None
    abandoned: str = ""
    outcome: Literal["Skipped", "Joined", "Completed"] = "Completed"
    message: str = ""
    result: RefreshResult | None = None


class RefreshOpen(NudgeflowError):
    """Another refresh of the campaign is open."""

    advice = "Wait for it or retry its flow run; with options.overlap = join it is continued."


class RefreshEnded(NudgeflowError):
    """The refresh has ended with a problem that no retry can solve."""

    advice = "It cannot be continued. Start a new refresh."


class NothingToPublish(NudgeflowError):
    """No open refresh of the campaign has started a rerun."""

    advice = (
        "Start a refresh. A run that was not started by Nudgeflow is published in the platform and "
        "fetched by export-messages."
    )


class NothingToAbandon(NudgeflowError):
    """The campaign has no open refresh."""

    advice = "Nothing has to be ended: start a refresh."


class StillRunning(NudgeflowError):
    """A flow run works on the refresh to abandon."""

    advice = "Cancel it first, then abandon the refresh."


@dataclass(frozen=True)
class Begin:
    """Begin a new refresh, and give up the previous one if that is still open."""

    previous: Standing | None = None


@dataclass(frozen=True)
class _About:
    standing: Standing


class Continue(_About):
    """Continue the refresh that this or another flow run has left half-way."""


class Wait(_About):
    """Wait for the owner, then decide again."""


class Joined(_About):
    """End: the owner has finished the refresh, or will without this flow run."""


class Finished(_About):
    """End: an earlier try of this flow run has finished the refresh."""


@dataclass(frozen=True)
class Refuse:
    """End, or fail if `overlap` is fail: another refresh is open."""

    overlap: Overlap


@dataclass(frozen=True)
class Over:
    """Fail: the refresh has ended with a problem that no retry can solve."""

    problem: str


Decision = Begin | Continue | Wait | Joined | Finished | Refuse | Over


def decide(
    standing: Standing | None,
    claimant: Refresh,
    overlap: Overlap,
    owner: str | None,
    waited_for: str | None,
) -> Decision:
    """Decide what the claimant does about the campaign's newest refresh.

    `owner` is the state of the flow run that works on it, None if that has ended, UNKNOWN if it
    cannot be told; `waited_for` is the id of the refresh that the claimant has been waiting for.
    """
    if standing is None:
        return Begin()
    if ended := standing.ended:
        if standing.belongs_to(claimant) and ended.outcome != "released":
            return Finished(standing) if ended.result else Over(ended.problem)
        finished = ended.result and standing.refresh.id == waited_for
        return Joined(standing) if finished else Begin(standing)
    if standing.belongs_to(claimant):
        return Begin(standing) if standing.given_up else Continue(standing)
    if owner is None and not standing.must_be_continued:
        return Begin(standing)
    if owner is None and standing.begun_by(claimant):
        return Continue(standing)
    if overlap != "join":
        return Refuse(overlap)
    if owner is None:
        return Continue(standing)
    return Joined(standing) if owner == SUSPENDED else Wait(standing)


@task(**RETRIED)
def claim_campaign(
    account: NudgescribeAccount,
    lake: DataLake,
    campaign_id: str,
    claimant: Refresh,
    overlap: Overlap,
    minutes: float,
    crm: str = "",
    options: dict[str, Any] | None = None,
) -> Claim:
    """Return the refresh for this flow run to work on: a new one, or one that an earlier flow run
    has left half-way. No other flow run works on the campaign then.

    A new one notes where its list comes from, `crm`, and the flow's `options`.

    Raises RefreshOpen if another refresh is open and `overlap` is fail, or if it is join and the
    other refresh is still running after `minutes`; RefreshEnded, JournalDamaged, TooNew.
    """
    claimed = Claimed(
        refresh=claimant, owner=this_process(claimant.id), crm=crm, options=options or {}
    )
    return _await(_Attempt(account, lake, campaign_id, claimed, overlap), minutes)


@task(**RETRIED)
def claim_open_refresh(
    account: NudgescribeAccount,
    lake: DataLake,
    campaign_id: str,
    claimant: Refresh,
    minutes: float,
) -> Claim:
    """Return the campaign's open refresh for this flow run to finish, as `claim_campaign` does.

    Raises NothingToPublish if none has started a rerun.
    """
    claimed = Claimed(refresh=claimant, owner=this_process(claimant.id))
    return _await(_Attempt(account, lake, campaign_id, claimed, "join", begins=False), minutes)


def _await(attempt: "_Attempt", minutes: float) -> Claim:
    for claim in poll(attempt, minutes * 60, POLL_POLICY):
        if claim:
            return claim
    raise RefreshOpen(f"{attempt.other} It was still open after {minutes:g} minutes.")


class _Attempt:
    """Tries to claim a campaign each time it is called."""

    def __init__(
        self,
        account: NudgescribeAccount,
        lake: DataLake,
        campaign_id: str,
        claimed: Claimed,
        overlap: Overlap,
        begins: bool = True,
    ) -> None:
        self.other = "Another refresh"
        self._account, self._lake = account, lake
        self._history = History(lake.files, campaign_partition(campaign_id))
        self._campaign_id = campaign_id
        self._claimed = claimed
        self._overlap: Overlap = overlap
        self._begins = begins
        self._waited_for: str | None = None

    def __call__(self) -> Claim | None:
        """Return None if the claimant has to wait, or another flow run was faster."""
        claimant, standing = self._claimed.refresh, self._history.newest()
        owner = None
        if standing and not standing.ended and not standing.belongs_to(claimant):
            assert standing.owner
            owner = owner_state(standing.owner)
            self.other = self._describe(standing, owner)
            if owner is None and not standing.noted and has_failed(standing.owner):
                # The note about its problem was lost: that may have been one that does not pass.
                standing = standing.model_copy(update={"failed": True})
        decision = decide(standing, claimant, self._overlap, owner, self._waited_for)
        if standing and self._would_lose_a_rerun(decision):
            started = standing.model_copy(update={"initiated": True})
            decision = decide(started, claimant, self._overlap, owner, self._waited_for)
        if isinstance(decision, Begin) and flow_run.run_count != 1:
            # It may have begun an earlier refresh, which others have ended since.
            earlier = self._history.ended_of(claimant)
            decision = decide(earlier, claimant, self._overlap, None, None) if earlier else decision
        return self._carry_out(decision)

    def _would_lose_a_rerun(self, decision: Decision) -> bool:
        """Return whether the refresh to be given up has started its rerun, which is noted then."""
        previous = decision.previous if isinstance(decision, Begin) else None
        if previous is None or previous.ended:
            return False
        return note_started_rerun(self._account, self._lake, previous.refresh)

    def _carry_out(self, decision: Decision) -> Claim | None:
        match decision:
            case Begin(previous) if not self._begins:
                over = previous.why_over if previous else ""
                raise NothingToPublish(
                    f"No open refresh of campaign {self._campaign_id} has started a rerun.{over}"
                )
            case Begin(previous):
                return self._begin(previous)
            case Continue(standing):
                return self._continue(standing)
            case Wait(standing):
                if standing.refresh.id != self._waited_for:
                    get_run_logger().info("%s Waiting for it.", self.other)
                    self._waited_for = standing.refresh.id
                return None
            case Joined(standing):
                return _joined(standing)
            case Refuse("skip"):
                return Claim(outcome="Skipped", message=self.other)
            case Refuse():
                raise RefreshOpen(self.other)
            case Finished(standing):
                assert standing.ended
                # That try may have been killed before it wrote the row.
                self._history.end(standing.number, standing.ended)
                self._lake.files.remove(standing.refresh.staging)
                message = "It was finished by an earlier try."
                return Claim(message=message, result=standing.ended.result)
            case Over(problem):
                raise RefreshEnded(problem)

    def _begin(self, previous: Standing | None) -> Claim | None:
        number = previous.number if previous else 0
        if previous:
            if previous.ended is None:
                # Whoever has it by now is not to be ended.
                last = self._claimed.owner.model_copy(update={"gives_up": True})
                if not self._history.take_over(previous, last):
                    return None
                given_up = Ended(outcome="released", problem="Its flow run ended half-way.")
                self._history.end(number, given_up)
            elif previous.refresh.journal:
                record(self._lake.files, previous.refresh.journal)
            self._lake.files.remove(previous.refresh.staging)
        # A flow run may begin more than one refresh of a campaign: each needs an id of its own.
        ids = {"id": f"{self._claimed.refresh.id}-{number}"} if number else {}
        refresh = self._claimed.refresh.model_copy(update=ids)
        if not self._history.begin(
            number + 1, self._claimed.model_copy(update={"refresh": refresh})
        ):
            return None
        journal = self._history.journal(number + 1).folder
        return Claim(
            refresh=refresh.model_copy(update={"journal": journal}),
            abandoned=self._history.abandoned(number),
        )

    def _continue(self, standing: Standing) -> Claim | None:
        if standing.owner != self._claimed.owner:
            if not standing.belongs_to(self._claimed.refresh):
                get_run_logger().info("%s It is continued here.", self.other)
            if not self._history.take_over(standing, self._claimed.owner):
                return None
        journal = self._history.journal(standing.number).folder
        return Claim(refresh=standing.refresh.model_copy(update={"journal": journal}))

    def _describe(self, standing: Standing, owner: str | None) -> str:
        assert standing.owner
        state = f"{owner}," if owner else "which has ended half-way,"
        if owner == UNKNOWN:
            server = standing.owner.server_url or "a server of version 0.1"
            state = f"known only to Prefect's server {server},"
        abandon = abandon_command(self._campaign_id, self._account, self._lake)
        return (
            f"{standing.owner.name}, {state} has a refresh of campaign {self._campaign_id} open. "
            f"If it cannot be finished: {abandon}."
        )


@task(**RETRIED)
def find_unchanged(
    lake: DataLake, campaign: CampaignRef, validated: Validated
) -> RefreshResult | None:
    """Return the result of the last refresh, None unless the campaign is still on its run, the lake
    has that run, and the list has the same accepted rows.
    """
    last = History(lake.files, campaign.partition).last_result()
    if last is None or last.fingerprint != validated.fingerprint:
        return None
    is_current = last.run_number == campaign.previous_run
    return last if is_current and lake.manifest(last.campaign_id, last.run_number) else None


@task(**RETRIED)
def knows_flow_run(lake: DataLake, campaign_id: str, claimant: Refresh) -> bool:
    """Return whether the claimant's flow run has worked on a refresh of the campaign that is in the
    lake, or may have: on one that cannot be read.

    Raises RefreshEnded if its journal may be one that retention has removed: only those of
    refreshes that are over go.
    """
    history = History(lake.files, campaign_partition(campaign_id))
    if history.knows(claimant):
        return True
    if history.has_lost_any():
        raise RefreshEnded(
            f"The refresh of this flow run is over: campaign {campaign_id} has had others since, "
            f"and lake {lake.files.root} no longer has its journal."
        )
    return False


def cannot_go_on(lake: DataLake, campaign_id: str, flow_run_id: str) -> bool:
    """Return whether the newest refresh of a flow run was ended before it was finished, or its
    journal was removed since, so that no retry can solve it.
    """
    history = History(lake.files, campaign_partition(campaign_id))
    claimant = Refresh(id=flow_run_id, started=datetime.now(UTC))
    try:
        if not history.knows(claimant):
            return history.has_lost_any()
        standing = history.ended_of(claimant)
    except LakeUnreachable:
        raise
    except LakeError:
        return False  # the retry of this campaign tells it, and stops no other
    return standing is not None and standing.ended is not None and not standing.ended.result


@task(**RETRIED)
def end_refresh(
    lake: DataLake, campaign_id: str, claimant: Refresh, refresh: Refresh, ended: Ended
) -> None:
    """End the refresh, which a retry returns or raises, and remove its customer list from the
    lake's staging. Does nothing if another flow run owns the refresh.
    """
    history, standing = _own(lake, campaign_id, claimant, refresh)
    if standing:
        history.end(standing.number, ended)
        lake.files.remove(refresh.staging)


@task(**RETRIED)
def record_problem(
    lake: DataLake, campaign_id: str, claimant: Refresh, refresh: Refresh, problem: Problem
) -> None:
    """Note what the flow run failed with. A refresh that has changed nothing at Nudgescribe is
    released: its list is removed, and the next flow run begins anew.
    """
    history, standing = _own(lake, campaign_id, claimant, refresh)
    if standing is None or standing.ended:
        return
    if not standing.kept:
        history.end(standing.number, Ended.by("released", problem))
        lake.files.remove(refresh.staging)
        return
    entry = problem.model_copy(update={"attempt": standing.attempt})
    journal = history.journal(standing.number)
    journal.append_next(Series.PROBLEM, entry)
    record(lake.files, journal.folder, count=True)


@task(**RETRIED)
def end_abandoned(lake: DataLake, campaign_id: str, who: str, why: str) -> Refresh | None:
    """End the campaign's open refresh, remove its list, and return it; None if its journal cannot
    be read. The flow run that is suspended for its review is cancelled.

    Raises NothingToAbandon, unless an earlier try has ended it; StillRunning if a flow run works on
    it.
    """
    history = History(lake.files, campaign_partition(campaign_id))
    ended = Ended(outcome="abandoned", problem=f"It was abandoned by {who}: {why}")
    try:
        standing = history.newest()
    except JournalDamaged:
        standing, number = None, history.newest_number()
    else:
        if standing is None or standing.ended not in (None, ended):
            over = standing.why_over if standing else ""
            raise NothingToAbandon(f"Campaign {campaign_id} has no open refresh.{over}")
        number = standing.number
        state = owner_state(standing.owner) if standing.owner else None
        if standing.owner and not standing.ended and state not in (None, UNKNOWN, SUSPENDED):
            raise StillRunning(f"{standing.owner.name} is {state}.")
    if standing and standing.owner:
        cancel_suspended(standing.owner)
    history.end(number, ended)
    if standing is None:
        return None
    lake.files.remove(standing.refresh.staging)
    return standing.refresh


def _own(
    lake: DataLake, campaign_id: str, claimant: Refresh, refresh: Refresh
) -> tuple[History, Standing | None]:
    """Return the campaign's history, and where the refresh stands if the claimant owns it."""
    history = History(lake.files, campaign_partition(campaign_id))
    standing = history.newest()
    ours = standing and standing.refresh.id == refresh.id and standing.belongs_to(claimant)
    return history, standing if ours else None


def _joined(standing: Standing) -> Claim:
    assert standing.owner
    ended = standing.ended
    progress = "has finished" if ended else "is awaiting review; it continues automatically"
    message = f"The refresh by flow run {standing.owner.flow_run} {progress}."
    return Claim(outcome="Joined", message=message, result=ended.result if ended else None)
