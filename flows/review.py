"""Suspended refreshes, resumed when people have approved their messages."""

import json
from datetime import UTC, datetime
from itertools import groupby

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
from prefect.exceptions import NotPausedError
from prefect.flow_runs import resume_flow_run
from prefect.logging import get_run_logger

from blocks import NudgescribeAccount
from flows.run.flow_run import dated
from nudgescribe.contract import Run, Status
from nudgescribe.errors import NudgeflowError
from tasks.refresh.review import REVIEWED, read_history
from tasks.ui.events import announce
from tasks.ui.labels import REVIEW_UNTIL, RUN_NUMBER

PAGE = 200


class ReviewsNotSeen(NudgeflowError):
    advice = "Those refreshes stay suspended; the log says why. They are looked at next time again."


@flow(name="resume-reviewed", flow_run_name=dated("reviewed"))
def resume_reviewed() -> list[str]:
    """Looks once at every suspended refresh and resumes those whose messages are approved, and
    those whose time is up, which then say so. Returns the ids of their flow runs.

    Raises ReviewsNotSeen if the service could not be asked about some of them.
    """
    resumed: list[str] = []
    unseen: list[str] = []
    for (account, campaign_id), runs in groupby(sorted(_suspended(), key=_where), _where):
        try:
            block = NudgescribeAccount.model_validate(json.loads(account))
            history = {run.run_number: run for run in read_history(block, campaign_id)}
        except NudgeflowError as error:
            get_run_logger().warning("Campaign %s: %s", campaign_id, error)
            unseen.append(campaign_id)
            continue
        ready = [each for each in runs if _goes_on(each, history)]
        resumed += [str(each.id) for each in ready if _resume(each)]
    if resumed:
        announce("reviews.resumed", "reviews", "all", "".join(resumed), {"flow_runs": resumed})
    if unseen:
        raise ReviewsNotSeen(f"Not seen: the reviews of campaigns {', '.join(unseen)}.")
    return resumed


def _suspended() -> list[FlowRun]:
    found: list[FlowRun] = []
    with get_client(sync_client=True) as client:
        while len(found) % PAGE == 0:
            page = client.read_flow_runs(
                flow_filter=FlowFilter(name=FlowFilterName(any_=["campaign-refresh"])),
                flow_run_filter=FlowRunFilter(
                    state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Suspended"]))
                ),
                sort=FlowRunSort.START_TIME_ASC,
                limit=PAGE,
                offset=len(found),
            )
            if not page:
                break
            found += page
    return [run for run in found if run.labels.get(REVIEW_UNTIL)]


def _where(run: FlowRun) -> tuple[str, str]:
    """Its account, as the parameter refers to it, and its campaign."""
    return json.dumps(run.parameters["account"]), str(run.parameters["campaign_id"])


def _goes_on(run: FlowRun, history: dict[int, Run]) -> bool:
    overdue = datetime.now(UTC) >= datetime.fromisoformat(str(run.labels[REVIEW_UNTIL]))
    seen = history.get(int(str(run.labels[RUN_NUMBER])))
    return overdue or seen is None or seen.status in (*REVIEWED, Status.FAILED)


def _resume(run: FlowRun) -> bool:
    """Whether it was we who resumed it: a person may have been first."""
    try:
        resume_flow_run(run.id, run_input={})
    except NotPausedError:
        return False
    except RuntimeError as error:
        get_run_logger().warning("%s cannot be resumed, retry it: %s", run.name, error)
        return False
    get_run_logger().info("Resumed %s", run.name)
    return True
