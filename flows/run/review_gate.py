"""The review gate of a refresh: it continues once people have approved the new messages."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Literal

from prefect.client.schemas.objects import State
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.logging import get_run_logger
from pydantic import Field

from blocks.rerun import RerunTimedOut
from flows.options import Review
from flows.run.flow_run import ClaimedRefresh, this_flow_run
from flows.run.outcomes import completed, failed
from nudgescribe.errors import NudgeflowError
from tasks.campaigns import RunRef
from tasks.refresh.checkpoint import Checkpoint
from tasks.refresh.rerun import REVIEWED, read_run, wait_for_review
from tasks.refresh.review import begin_review, end_review, report_review
from tasks.ui.commands import publish_command
from tasks.ui.signals import REVIEW_UNTIL, add_labels

BACKSTOP = timedelta(days=7)
"""Added to the deadline, for then Prefect ends a suspended flow run in a state of its own."""


class ReviewDecision(RunInput):
    """The form for resuming a flow run; one whose run is not approved yet is suspended again."""

    decision: Literal["publish now", "stop here"] = Field(
        default="publish now", description="Your decision."
    )
    note: str = Field(default="", description="The reason, for the flow run's log.")


class SuspensionImpossible(NudgeflowError):
    """The flow run cannot be suspended for its review."""

    advice = "Start it as a deployment, or set options.review to wait or stop."


class ReviewStopped(NudgeflowError):
    """A person has stopped the refresh at its review."""

    advice = "Retry this flow run to review it again. The run stays at Nudgescribe as it is."


class ReviewOverdue(NudgeflowError):
    """Nobody has approved the messages in time."""

    advice = "Retry this flow run to wait again. The run stays at Nudgescribe as it is."


def check_can_review(review: Review) -> None:
    """Raise SuspensionImpossible if this flow run cannot be suspended for its review later on."""
    if review == "suspend" and this_flow_run().deployment_id is None:
        raise SuspensionImpossible("Only a deployment's flow run can be suspended for a review.")


def await_approval(
    claimed: ClaimedRefresh, checkpoint: Checkpoint, review: Review, minutes: float
) -> State[Any] | None:
    """Return None once the run may be published, else the state for the flow run to end in."""
    account, run = claimed.account, checkpoint.run
    if review == "suspend":
        return _suspended_review(claimed, checkpoint, minutes)
    if review == "stop":
        status = read_run(account, run).status
        message = f"Run {run.run_number} is {status}. {_how_to_publish(claimed, run)}"
        return completed("Stopped", message)
    try:
        wait_for_review(account, run, minutes)
    except RerunTimedOut as error:
        overdue = ReviewOverdue(f"{error.problem} {_how_to_publish(claimed, run)}")
        return failed("ReviewOverdue", overdue)
    return None


def _how_to_publish(claimed: ClaimedRefresh, run: RunRef) -> str:
    command = publish_command(run.campaign_id, claimed.account, claimed.lake)
    return f"Once its messages are approved: {command}."


def _suspended_review(
    claimed: ClaimedRefresh, checkpoint: Checkpoint, minutes: float
) -> State[Any] | None:
    account, lake, refresh = claimed.account, claimed.lake, claimed.refresh
    labelled = str(this_flow_run().labels.get(REVIEW_UNTIL) or "")
    # The flow starts over after each suspension: a key that was answered returns its answer.
    run, until = checkpoint.run, begin_review(lake, refresh, minutes, labelled)
    add_labels({REVIEW_UNTIL: until.isoformat()})
    answered = this_flow_run().empirical_policy.pause_keys or set[str]()
    for number in count(1):
        key, page = f"review-{number}-until-{until:%Y%m%d%H%M%S}", ""
        if key not in answered:
            status = read_run(account, run).status
            if status in REVIEWED:
                return None
            if datetime.now(UTC) >= until:
                error = ReviewOverdue(
                    f"Run {run.run_number} was not approved by {until:%Y-%m-%d %H:%M} UTC; it is "
                    f"{status}. {_how_to_publish(claimed, run)}"
                )
                end_review(lake, refresh)  # a retry has a review of its own
                return failed("ReviewOverdue", error)
            page = report_review(account, checkpoint)
        left = until - datetime.now(UTC) + BACKSTOP
        answer = suspend_flow_run(
            wait_for_input=ReviewDecision.with_initial_data(description=page),
            timeout=max(1, int(left.total_seconds())),
            key=key,
        )
        if answer.decision == "stop here":
            note = f": {answer.note.rstrip('.')}." if answer.note else "."
            end_review(lake, refresh)
            stopped = f"Run {run.run_number} was stopped{note} {_how_to_publish(claimed, run)}"
            return failed("ReviewStopped", ReviewStopped(stopped))
        if answer.note:
            get_run_logger().info("Resumed: %s", answer.note)
    raise AssertionError
