"""A campaign's rerun as a Prefect job: triggered at most once, waited for, its result fetched."""

from collections.abc import Callable
from typing import ClassVar

from prefect.blocks.abstract import JobBlock, JobRun
from pydantic import Field

from blocks.account import NudgescribeAccount
from blocks.saved import LOGO_URL, documentation_url
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Run, Status
from nudgescribe.errors import (
    ApiError,
    ConnectionFailed,
    NotPublished,
    NudgeflowError,
    Retryable,
    ServerError,
)
from nudgescribe.polling import Pace, poll

PATIENCE_SECONDS = 60.0
"""How long to watch the history for a rerun whose initiate got no clear answer."""

DONE = (Status.READY_FOR_REVIEW, Status.READY_TO_PUBLISH, Status.PUBLISHED)


class RerunFailed(NudgeflowError):
    advice = "The campaign is back on its previous run. Mend the cause and start a new refresh."


class RerunTimedOut(NudgeflowError):
    advice = "The rerun goes on at the service; retry this flow run to wait on."


class NotCurrent(NudgeflowError):
    advice = "Somebody re-ran the campaign meanwhile: look at its history before anything else."


def find_current_run(history: list[Run]) -> Run:
    """The run a campaign is on: a failed one puts it back on the one before."""
    alive = (run for run in history if run.status != Status.FAILED)
    return max(alive, key=lambda run: run.run_number)


class CampaignRerun(JobBlock[Run]):
    """
    Re-runs a published campaign on another customer group.

    Example:
        ```python
        from blocks import CampaignRerun

        rerun = CampaignRerun.load("BLOCK_NAME")
        job = rerun.trigger()
        job.wait_for_completion()
        print(job.fetch_result().status)
        ```
    """

    _block_type_name = "Nudgescribe campaign rerun"
    _logo_url = LOGO_URL
    _documentation_url = documentation_url("the-refresh")

    account: NudgescribeAccount = Field(description="The account the campaign belongs to.")
    campaign_id: str = Field(description="The campaign to re-run.")
    customer_group_id: str = Field(description="The customer group to re-run it on.")
    after_run: int | None = Field(
        default=None,
        description="The run the campaign must be on, so that no other one comes between; earlier "
        "ones are not this rerun, though on the same group.",
    )
    deadline_minutes: float = Field(
        default=240, gt=0, description="How long to wait for the rerun, in minutes."
    )
    pace: ClassVar[Pace] = Pace()

    def trigger(self) -> "RerunJob":  # pyright: ignore[reportIncompatibleMethodOverride]
        """Starts the rerun on this group, or adopts the one already started on it.

        The request is sent at most once; after an unclear answer the history decides. Raises
        NotCurrent.
        """
        with self.account.get_client() as client:
            history = client.rerun_history(self.campaign_id)
            if run := self._started(history):
                self.logger.info("Run %s is already on this group: adopted", run.run_number)
                return self.attach(run.run_number)
            self._check_current(history)
            try:
                run = client.initiate_rerun(self.campaign_id, self.customer_group_id).run
            except (ConnectionFailed, ServerError) as unclear:
                run = self._look_for_started(client, unclear, PATIENCE_SECONDS)
            except NotPublished as refusal:
                # An earlier request of ours, thought lost, may have come through just now.
                run = self._look_for_started(client, refusal, 0)
        return self.attach(run.run_number)

    def attach(self, run_number: int, on_poll: Callable[[Run], None] | None = None) -> "RerunJob":
        """The job of a rerun known to exist; `on_poll` is told what each look saw."""
        return RerunJob(self, run_number, on_poll)

    def _started(self, history: list[Run]) -> Run | None:
        for run in history:
            ours = run.customer_group_id == self.customer_group_id
            if ours and run.run_number > (self.after_run or 0) and run.status != Status.FAILED:
                return run
        return None

    def _check_current(self, history: list[Run]) -> None:
        current = find_current_run(history).run_number
        if self.after_run is not None and current != self.after_run:
            raise NotCurrent(
                f"Campaign {self.campaign_id} is on run {current}, not on run {self.after_run}."
            )

    def _look_for_started(self, client: NudgescribeClient, error: ApiError, seconds: float) -> Run:
        for history in poll(lambda: client.rerun_history(self.campaign_id), seconds, self.pace):
            if run := self._started(history):
                self.logger.info("Run %s was started all the same: adopted", run.run_number)
                return run
        raise error


class RerunJob(JobRun[Run]):
    """One rerun at the service."""

    def __init__(
        self,
        rerun: CampaignRerun,
        run_number: int,
        on_poll: Callable[[Run], None] | None,
    ) -> None:
        self.run_number = run_number
        self._rerun = rerun
        self._on_look = on_poll
        self._name = f"Run {run_number} of campaign {rerun.campaign_id}"

    def wait_for_completion(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns when the run is ready for review or further. Raises RerunFailed with the
        service's reason, RerunTimedOut with what was last seen.
        """
        self.wait_until(*DONE)

    def wait_until(self, *statuses: Status) -> Run:
        """The run as soon as it has one of these statuses; errors as in `wait_for_completion`."""
        deadline = self._rerun.deadline_minutes * 60
        seen = ""
        with self._rerun.account.get_client() as client:
            for run in poll(lambda: self._look(client), deadline, self._rerun.pace):
                if seen != (seen := _words(run)):
                    self.logger.info("Run %s: %s", run.run_number, seen)
                if self._on_look:
                    self._on_look(run)
                if run.status == Status.FAILED:
                    raise RerunFailed(f"{self._name} failed: {run.error or 'no reason given.'}")
                if run.status in statuses:
                    return run
        wanted = " or ".join(statuses)
        raise RerunTimedOut(
            f"{self._name} was not {wanted} after {deadline:.0f} s, last seen: {seen}."
        )

    def fetch_result(self) -> Run:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The run as the history shows it now."""
        with self._rerun.account.get_client() as client:
            return self._look(client)

    def _look(self, client: NudgescribeClient) -> Run:
        for run in client.rerun_history(self._rerun.campaign_id):
            if run.run_number == self.run_number:
                return run
        # The history may lag behind the answer that named the run.
        raise Retryable(f"{self._name} is not in the history yet.")


def _words(run: Run) -> str:
    working = run.status == Status.PROCESSING and run.phase
    return f"{run.status} ({run.phase})" if working else run.status
