"""The block for a campaign's rerun as a Prefect job: trigger, wait, fetch the result."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from prefect.blocks.abstract import JobBlock, JobRun
from pydantic import Field

from blocks.account import NudgescribeAccount
from blocks.documentation import Documented, documentation_url
from blocks.saved import FORM
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Run, Status
from nudgescribe.errors import (
    LONGEST_TEXT,
    ApiError,
    ConnectionFailed,
    ContractMismatch,
    NotPublished,
    NudgeflowError,
    ServerError,
    cut,
)
from nudgescribe.retry import PollPolicy, poll

PATIENCE_SECONDS = 60.0
"""How long to poll the history for a rerun that it does not show."""

DONE = (Status.READY_FOR_REVIEW, Status.READY_TO_PUBLISH, Status.PUBLISHED)


class RerunFailed(NudgeflowError):
    """The service's own job of a rerun has failed."""

    advice = "The campaign is back on its previous run. Fix the cause and start a new refresh."


class RerunTimedOut(NudgeflowError):
    """A rerun did not reach a state in time."""

    advice = "The rerun continues at the service; retry this flow run to wait again."


class NotCurrent(NudgeflowError):
    """The campaign has moved on to another run."""

    advice = "Somebody else has rerun the campaign meanwhile: look at its history first."


class RunRemoved(NotCurrent):
    """The campaign's history no longer has the run."""

    advice = (
        "It was removed in the platform, so its refresh is over: start a new one. If the run is "
        "there again, publish it or remove it first."
    )


class UnknownState(ContractMismatch):
    """A campaign or a run is in a state that is none of `Status`."""

    advice = (
        "Look at it in the platform. If the state is new, add it to Status in "
        "nudgescribe/contract.py, and say there what it means."
    )


def find_current_run(campaign_id: str, history: list[Run]) -> Run:
    """Return the run that a campaign is on: its newest one that has not failed.

    A failed run puts the campaign back on the one before. Raises UnknownState if the newest run is
    in an unknown state; ContractMismatch if there is no run.
    """
    candidates = [run for run in history if run.status != Status.FAILED]
    if not candidates:
        raise ContractMismatch(f"Campaign {campaign_id} has no run, or all its runs have failed.")
    current = max(candidates, key=lambda run: run.run_number)
    refuse_unknown(f"Run {current.run_number} of campaign {campaign_id}", current.status)
    return current


def refuse_unknown(what: str, status: str) -> None:
    """Raise UnknownState if the state of a run or a campaign is none of `Status`."""
    if not is_known(status):
        raise UnknownState(f"{what} is in state '{status}', which this version does not know.")


def is_known(status: str) -> bool:
    """Return whether a state is one of `Status`."""
    return status in set(Status)


def check_current(campaign_id: str, history: list[Run], run_number: int) -> None:
    """Raise NotCurrent if the campaign is on another run than this one."""
    current = find_current_run(campaign_id, history).run_number
    if current != run_number:
        raise NotCurrent(f"Campaign {campaign_id} is on run {current}, not on run {run_number}.")


if TYPE_CHECKING:
    _Job = JobBlock[Run]
else:
    # With a parameter it is another block, which Prefect would offer in its catalog.
    _Job = JobBlock


class CampaignRerun(Documented, _Job):
    """
    The rerun of a published campaign on another customer group.

    Example:
        ```python
        from blocks import CampaignRerun

        rerun = CampaignRerun.load("BLOCK_NAME")
        job = rerun.trigger()
        job.wait_for_completion()
        print(job.fetch_result().status)
        ```
    """

    model_config = FORM

    _block_type_name = "Nudgescribe campaign rerun"
    _documentation_url = documentation_url("the-refresh")

    account: NudgescribeAccount = Field(description="The account the campaign belongs to.")
    campaign_id: str = Field(description="ID of the campaign to rerun.")
    customer_group_id: str = Field(description="ID of the customer group to rerun it on.")
    after_run: int | None = Field(
        default=None,
        description="Number of the run the campaign must be on when the rerun starts. Only later "
        "runs on this group count as this rerun.",
    )
    deadline_minutes: float = Field(
        default=240, gt=0, description="How long to wait for the rerun, in minutes."
    )
    poll_policy: ClassVar[PollPolicy] = PollPolicy()

    def trigger(self) -> "RerunJob":  # pyright: ignore[reportIncompatibleMethodOverride]
        """Start the rerun on this group, or adopt one that was started on it before.

        The request is sent at most once; if its answer is lost, the history decides.

        Raises NotCurrent, or the service's ApiError.
        """
        with self.account.get_client() as client:
            history = client.rerun_history(self.campaign_id)
            if run := self._find_started(history):
                self.logger.info("Run %s is already on this group: adopted", run.run_number)
                return RerunJob(self, run.run_number, job_uid=run.job_uid)
            if self.after_run is not None:
                check_current(self.campaign_id, history, self.after_run)
            try:
                run = client.initiate_rerun(self.campaign_id, self.customer_group_id).run
            except (ConnectionFailed, ServerError, ContractMismatch) as unclear:
                run = self._await_started(client, unclear, PATIENCE_SECONDS)
            except NotPublished as refusal:
                # An earlier request of ours that seemed lost may have succeeded just now.
                run = self._await_started(client, refusal, 0)
        return RerunJob(self, run.run_number, job_uid=run.job_uid)

    def find(self) -> "RerunJob | None":
        """Return the rerun that was started on this group; None if the history shows none."""
        with self.account.get_client() as client:
            run = self._find_started(client.rerun_history(self.campaign_id))
        return RerunJob(self, run.run_number, job_uid=run.job_uid) if run else None

    def attach(self, run_number: int, on_poll: Callable[[Run], None] | None = None) -> "RerunJob":
        """Return the job of an existing rerun; each poll calls `on_poll` with the run."""
        return RerunJob(self, run_number, on_poll)

    def _find_started(self, history: list[Run]) -> Run | None:
        for run in history:
            is_ours = run.customer_group_id == self.customer_group_id
            if is_ours and run.run_number > (self.after_run or 0) and run.status != Status.FAILED:
                return run
        return None

    def _await_started(self, client: NudgescribeClient, error: ApiError, seconds: float) -> Run:
        for history in poll(
            lambda: client.rerun_history(self.campaign_id), seconds, self.poll_policy
        ):
            if run := self._find_started(history):
                self.logger.info("Run %s was started all the same: adopted", run.run_number)
                return run
        raise error


class RerunJob(JobRun[Run]):
    """One rerun at the service, by its run number; `job_uid` is known to who has started it."""

    def __init__(
        self,
        rerun: CampaignRerun,
        run_number: int,
        on_poll: Callable[[Run], None] | None = None,
        job_uid: str | None = None,
    ) -> None:
        self.run_number = run_number
        self.job_uid = job_uid
        self._rerun = rerun
        self._on_look = on_poll
        self._name = f"Run {run_number} of campaign {rerun.campaign_id}"

    def wait_for_completion(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Wait until the run is ready for review, ready to publish or published.

        Raises RerunFailed with the service's reason, RerunTimedOut with the last status;
        RunRemoved.
        """
        self.wait_until(*DONE)

    def wait_until(self, *statuses: Status) -> Run:
        """Wait for one of these statuses and return the run.

        Raises as `wait_for_completion` does.
        """
        deadline = self._rerun.deadline_minutes * 60
        seen = ""
        with self._rerun.account.get_client() as client:
            for run in poll(lambda: self._fetch(client), deadline, self._rerun.poll_policy):
                if (now := _describe_status(run)) != seen:
                    self.logger.info("Run %s: %s", run.run_number, now)
                    seen = now
                if self._on_look:
                    self._on_look(run)
                if run.status == Status.FAILED:
                    reason = cut(run.error or "no reason given.", LONGEST_TEXT)
                    raise RerunFailed(f"{self._name} failed: {reason}")
                if run.status in statuses:
                    return run
        wanted = " or ".join(statuses)
        raise RerunTimedOut(
            f"{self._name} was not {wanted} after {deadline:.0f} s, last seen: {seen}."
        )

    def fetch_result(self) -> Run:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the run as the history shows it now. Raises RunRemoved if it is not there."""
        with self._rerun.account.get_client() as client:
            return self._fetch(client)

    def _fetch(self, client: NudgescribeClient) -> Run:
        # The history may lag behind the answer that gave the run's number.
        read = partial(client.rerun_history, self._rerun.campaign_id)
        for history in poll(read, PATIENCE_SECONDS, self._rerun.poll_policy):
            if run := self._find_in(history):
                return run
        # The last looks may have failed, and what they did not show is no proof.
        if run := self._find_in(read()):
            return run
        raise RunRemoved(f"{self._name} is not in its history, after {PATIENCE_SECONDS:g} seconds.")

    def _find_in(self, history: list[Run]) -> Run | None:
        return next((run for run in history if run.run_number == self.run_number), None)


def _describe_status(run: Run) -> str:
    has_phase = run.status == Status.PROCESSING and run.phase
    return f"{run.status} ({run.phase})" if has_phase else run.status
