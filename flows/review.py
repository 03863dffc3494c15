"""The resumption of suspended refreshes whose messages are approved."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from typing import cast

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateName,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import FlowPauseTimeout, NotPausedError, PrefectHTTPStatusError
from prefect.flow_runs import resume_flow_run
from prefect.input import Keyset
from prefect.logging import get_run_logger

from blocks import NudgescribeAccount
from blocks.rerun import refuse_unknown
from flows.run.flow_run import dated
from flows.run.review_gate import ReviewDecision
from nudgescribe.contract import Run, Status
from nudgescribe.errors import NotFound, NudgeflowError, first_ten
from tasks.refresh.rerun import REVIEWED
from tasks.refresh.review import read_history
from tasks.ui.signals import REVIEW_UNTIL, RUN_NUMBER, announce

PAGE_SIZE = 200


class ReviewsNotChecked(NudgeflowError):
    """The reviews of some campaigns could not be looked at."""

    advice = "These refreshes stay suspended; the log says why. The next run checks them again."


@flow(name="resume-reviewed", flow_run_name=dated("reviewed"), persist_result=False)
def resume_reviewed() -> list[str]:
    """Resume every suspended refresh whose messages are approved, and every one whose review is
    overdue: that ends as ReviewOverdue. Return the ids of their flow runs.

    Raises ReviewsNotChecked if Nudgescribe does not answer for some campaigns, or their runs are in
    a state that is not known.
    """
    resumed: list[str] = []
    unchecked: list[str] = []
    suspended = sorted(_suspended(), key=_campaign)
    for (account, campaign_id), runs in groupby(suspended, _campaign):
        try:
            for run in _ready(account, campaign_id, [*runs]):
                resumed += [str(run.id)] if _resume(run) else []
        except NudgeflowError as error:
            get_run_logger().warning("Campaign %s: %s", campaign_id, error)
            unchecked.append(campaign_id)
    if resumed:
        announce("reviews.resumed", "reviews", "all", "".join(resumed), {"flow_runs": resumed})
    if unchecked:
        raise ReviewsNotChecked(f"Not checked: the reviews of campaigns {first_ten(unchecked)}.")
    return resumed


def _suspended() -> list[FlowRun]:
    suspended: list[FlowRun] = []
    with get_client(sync_client=True) as client:
        while len(suspended) % PAGE_SIZE == 0:
            page = client.read_flow_runs(
                flow_filter=FlowFilter(name=FlowFilterName(any_=["campaign-refresh"])),
                flow_run_filter=FlowRunFilter(
                    state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Suspended"]))
                ),
                sort=FlowRunSort.START_TIME_ASC,
                limit=PAGE_SIZE,
                offset=len(suspended),
            )
            if not page:
                break
            suspended += page
    return [run for run in suspended if run.labels.get(REVIEW_UNTIL)]


def _campaign(run: FlowRun) -> tuple[str, str]:
    """Return the reference of the flow run's account, as JSON, and its campaign's id."""
    return json.dumps(run.parameters["account"]), str(run.parameters["campaign_id"])


def _ready(account: str, campaign_id: str, runs: list[FlowRun]) -> Iterator[FlowRun]:
    """Yield the refreshes of a campaign that can go on, or must end.

    Those that are overdue come first, without a call to Nudgescribe.
    """
    overdue = [run for run in runs if _is_overdue(run)]
    yield from overdue
    if not (waiting := [run for run in runs if run not in overdue]):
        return
    block = NudgescribeAccount.model_validate(json.loads(account))
    try:
        history = {run.run_number: run for run in read_history(block, campaign_id)}
    except NotFound:
        history = dict[int, Run]()  # it was deleted: each refresh says so itself
    yield from (run for run in waiting if _is_ready(run, campaign_id, history))


def _is_overdue(flow_run: FlowRun) -> bool:
    return datetime.now(UTC) >= datetime.fromisoformat(str(flow_run.labels[REVIEW_UNTIL]))


def _is_ready(flow_run: FlowRun, campaign_id: str, history: dict[int, Run]) -> bool:
    """Return whether a refresh can go on. Raises UnknownState."""
    run = history.get(int(str(flow_run.labels[RUN_NUMBER])))
    if run is None:
        return True
    refuse_unknown(f"Run {run.run_number} of campaign {campaign_id}", run.status)
    return run.status in (*REVIEWED, Status.FAILED)


def _resume(run: FlowRun) -> bool:
    """Return whether this flow resumed the run; a person may have been faster."""
    try:
        try:
            resume_flow_run(run.id, run_input={})
        except RuntimeError:
            _save_form(run)
            resume_flow_run(run.id, run_input={})
    except (NotPausedError, FlowPauseTimeout):
        return False
    except (RuntimeError, PrefectHTTPStatusError) as error:
        get_run_logger().warning("%s cannot be resumed, retry it: %s", run.name, error)
        return False
    get_run_logger().info("Resumed %s", run.name)
    return True


def _save_form(run: FlowRun) -> None:
    """Save the form of a review whose worker died when the flow run was suspended, but before it
    had saved the form, without which Prefect resumes nothing.
    """
    keyset = run.state.state_details.run_input_keyset if run.state else None
    if keyset:
        ReviewDecision.save(cast(Keyset, keyset), run.id)
