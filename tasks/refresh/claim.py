"""The claim on a campaign: one open refresh at a time, whichever flow run works on it."""

import os
import socket
from dataclasses import dataclass
from typing import Literal

from prefect import task
from prefect.logging import get_run_logger

from blocks import DataLake
from blocks.storage.files import Files
from blocks.storage.manifest import campaign_partition
from nudgescribe.bases import Frozen
from nudgescribe.errors import NudgeflowError
from nudgescribe.retry import Pace, poll
from tasks.campaigns import Refresh
from tasks.customers.staging import folder_of, is_kept
from tasks.policies import READ
from tasks.refresh.register import Entry, Register, owner_state
from tasks.refresh.report import RefreshResult

PACE = Pace(longest=30)

Overlap = Literal["skip", "join", "fail"]


class Claim(Frozen):
    """The refresh to work on; without one, the state for the flow run to end in, with a message
    and the result of the refresh that another flow run or an earlier try has finished.
    """

    refresh: Refresh | None = None
    outcome: Literal["Skipped", "Joined", "Completed"] = "Completed"
    message: str = ""
    result: RefreshResult | None = None


class RefreshOpen(NudgeflowError):
    advice = "Wait for it or retry its flow run; with options.overlap = join it is continued."


class RefreshEnded(NudgeflowError):
    advice = "It cannot be continued. Start a new refresh."


@dataclass(frozen=True)
class Begin:
    """Begin a new refresh, and remove what the previous one has left in staging."""

    previous: Refresh | None = None


@dataclass(frozen=True)
class _About:
    entry: Entry


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
class Ended:
    """Fail: the refresh has ended with a problem that no retry can solve."""

    problem: str


Decision = Begin | Continue | Wait | Joined | Finished | Refuse | Ended


def decide(
    entry: Entry | None,
    claimant: Refresh,
    overlap: Overlap,
    owner: str | None,
    kept: bool,
    waited_for: str | None,
) -> Decision:
    """Decide what the claimant does about the campaign's newest entry.

    `owner` is the state of the flow run that works on the entry's refresh, None if it has ended;
    `kept` tells whether that refresh's list is to be kept; `waited_for` is the id of the refresh
    that the claimant has been waiting for.
    """
    if entry is None:
        return Begin()
    if entry.belongs_to(claimant):
        if entry.result:
            return Finished(entry)
        return Ended(entry.problem) if entry.problem else Continue(entry)
    if not entry.open:
        finished = entry.result and entry.refresh.id == waited_for
        return Joined(entry) if finished else Begin(entry.refresh)
    if owner is None and not kept:
        return Begin(entry.refresh)
    if overlap != "join":
        return Refuse(overlap)
    if owner is None:
        return Continue(entry)
    return Joined(entry) if owner == "Suspended" else Wait(entry)


@task(**READ)
def claim_campaign(
    lake: DataLake, campaign_id: str, claimant: Refresh, overlap: Overlap, minutes: float
) -> Claim:
    """Return the refresh for this flow run to work on: a new one, or one that an earlier flow run
    has left half-way. No other flow run works on the campaign then.

    Raises RefreshOpen if another refresh is open and `overlap` is fail, or if it is join and the
    other refresh is still running after `minutes`; RefreshEnded.
    """
    attempt = _Attempt(lake.files, campaign_id, claimant, overlap)
    for claim in poll(attempt, minutes * 60, PACE):
        if claim:
            return claim
    raise RefreshOpen(
        f"{attempt.owner} still had campaign {campaign_id} after {minutes:g} minutes."
    )


class _Attempt:
    """Tries to claim a campaign each time it is called."""

    def __init__(self, files: Files, campaign_id: str, claimant: Refresh, overlap: Overlap) -> None:
        self.owner = "Another flow run"
        self._files = files
        self._register = Register(files, campaign_partition(campaign_id))
        self._campaign_id = campaign_id
        self._claimant = claimant
        self._overlap: Overlap = overlap
        self._waited_for: str | None = None

    def __call__(self) -> Claim | None:
        """Return None if the claimant has to wait, or another flow run was faster."""
        number, entry = self._register.newest()
        owner, kept = None, False
        if entry and entry.open and not entry.belongs_to(self._claimant):
            owner = owner_state(entry)
            kept = owner is None and is_kept(self._files, entry.refresh)
            self.owner = f"Flow run {entry.flow_run}, {owner or 'which has ended half-way'},"
        decision = decide(entry, self._claimant, self._overlap, owner, kept, self._waited_for)
        return self._carry_out(decision, number)

    def _carry_out(self, decision: Decision, number: int) -> Claim | None:
        message = f"{self.owner} has a refresh of campaign {self._campaign_id} open."
        match decision:
            case Begin(previous):
                if previous:
                    self._files.remove(folder_of(previous))
                return self._begin(number)
            case Continue(entry):
                if not entry.belongs_to(self._claimant):
                    get_run_logger().info("%s It is continued here.", message)
                return self._add(number, entry.refresh)
            case Wait(entry):
                if entry.refresh.id != self._waited_for:
                    get_run_logger().info("%s Waiting for it.", message)
                    self._waited_for = entry.refresh.id
                return None
            case Joined(entry):
                return _joined(entry)
            case Refuse("skip"):
                return Claim(outcome="Skipped", message=message)
            case Refuse():
                raise RefreshOpen(message)
            case Finished(entry):
                self._files.remove(folder_of(entry.refresh))
                return Claim(message="It was finished by an earlier try.", result=entry.result)
            case Ended(problem):
                raise RefreshEnded(problem)

    def _begin(self, number: int) -> Claim | None:
        # A flow run may begin more than one refresh of a campaign: each needs an id of its own.
        ids = {"id": f"{self._claimant.id}-{number}"} if number else {}
        return self._add(number, self._claimant.model_copy(update=ids))

    def _add(self, number: int, refresh: Refresh) -> Claim | None:
        entry = Entry(
            refresh=refresh,
            flow_run=self._claimant.id,
            host=socket.gethostname(),
            pid=os.getpid(),
        )
        return Claim(refresh=refresh) if self._register.add(number + 1, entry) else None


@task(**READ)
def close_refresh(
    lake: DataLake,
    campaign_id: str,
    claimant: Refresh,
    refresh: Refresh,
    result: RefreshResult | None = None,
    problem: str | None = None,
) -> None:
    """End the refresh with a result or a problem, which a retry returns or raises, and remove its
    customer list from the lake's staging. Does nothing if another flow run owns the refresh.
    """
    files = lake.files
    register = Register(files, campaign_partition(campaign_id))
    number, entry = register.newest()
    if entry is not None and entry.flow_run == claimant.id:
        ended = entry.model_copy(update={"open": False, "result": result, "problem": problem})
        register.add(number + 1, ended)
        files.remove(folder_of(refresh))


@task(**READ)
def release_refresh(lake: DataLake, campaign_id: str, claimant: Refresh, refresh: Refresh) -> None:
    """Release the campaign and remove the list, unless the list is to be kept."""
    if not is_kept(lake.files, refresh):
        close_refresh.fn(lake, campaign_id, claimant, refresh)


def _joined(entry: Entry) -> Claim:
    progress = "is awaiting review; it continues automatically" if entry.open else "has finished"
    message = f"The refresh by flow run {entry.flow_run} {progress}."
    return Claim(outcome="Joined", message=message, result=entry.result)
