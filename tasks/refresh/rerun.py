"""The rerun and its review: started once, waited for by one task each."""

from collections.abc import Callable
from time import monotonic
from uuid import UUID

from prefect import task
from prefect.artifacts import create_progress_artifact
from prefect.logging import get_run_logger

from blocks import CampaignRerun, NudgescribeAccount
from nudgescribe.contract import ComparisonSummary, Phase, Run, Status
from tasks.campaigns import CampaignRef, RunRef
from tasks.customers.upload import GroupRef
from tasks.policies import ONCE, READ
from tasks.ui.artifacts import artifact_key
from tasks.ui.console import Line
from tasks.ui.labels import ACCOUNT, JOB_UID, RUN_NUMBER, label
from tasks.ui.progress import show_progress

PROGRESS_EVERY = 2.0
"""Seconds between updates of the progress artifact at least."""

_PROGRESS: dict[str, float] = {
    phase: 100 * number / len(Phase) for number, phase in enumerate(Phase)
}


@task(**ONCE)
def initiate_rerun(account: NudgescribeAccount, campaign: CampaignRef, group: GroupRef) -> RunRef:
    """Starts the campaign's rerun on the group, or adopts the one this refresh has started.

    A second try begins by looking for what the first has started.
    """
    rerun = CampaignRerun(
        account=account,
        campaign_id=campaign.campaign_id,
        customer_group_id=group.customer_group_id,
        after_run=campaign.previous_run,
    )
    run = rerun.trigger().fetch_result()
    get_run_logger().info("Rerun: run %s, job %s", run.run_number, run.job_uid)
    return RunRef(
        campaign_id=campaign.campaign_id,
        run_number=run.run_number,
        customer_group_id=group.customer_group_id,
        job_uid=run.job_uid,
    )


@task(**READ)
def wait_for_rerun(
    account: NudgescribeAccount, run: RunRef, minutes: float
) -> ComparisonSummary | None:
    """Waits until the rerun's job is done, and returns how its segments compared.

    Raises RerunFailed with the service's reason, RerunTimedOut.
    """
    label({ACCOUNT: account.block_name, RUN_NUMBER: run.run_number, JOB_UID: run.job_uid or ""})
    with _line(run) as line:
        job = _rerun(account, run, minutes).attach(run.run_number, _progress(run, line))
        job.wait_for_completion()
    return job.fetch_result().comparison_summary


@task(**READ)
def wait_for_review(account: NudgescribeAccount, run: RunRef, minutes: float) -> None:
    """Waits until people have approved the run's new messages. Raises RerunTimedOut."""
    with _line(run) as line:
        job = _rerun(account, run, minutes).attach(run.run_number, lambda seen: _tell(line, seen))
        job.wait_until(Status.READY_TO_PUBLISH, Status.PUBLISHED)


def _rerun(account: NudgescribeAccount, run: RunRef, minutes: float) -> CampaignRerun:
    return CampaignRerun(
        account=account,
        campaign_id=run.campaign_id,
        customer_group_id=run.customer_group_id,
        deadline_minutes=minutes,
    )


def _line(run: RunRef) -> Line:
    return Line(f"Waiting for run {run.run_number}")


def _tell(line: Line, seen: Run) -> None:
    phase = seen.phase if seen.status == Status.PROCESSING else None
    line.show(f"Waiting for run {seen.run_number}: {phase or seen.status}")


def _progress(run: RunRef, line: Line) -> Callable[[Run], None]:
    artifact = create_progress_artifact(
        0, key=artifact_key("rerun", run.campaign_id), description=f"Run {run.run_number}"
    )
    assert isinstance(artifact, UUID)
    shown, updated = 0.0, monotonic()

    def show(seen: Run) -> None:
        nonlocal shown, updated
        _tell(line, seen)
        done = seen.status != Status.PROCESSING
        progress = 100.0 if done else _PROGRESS.get(seen.phase or "", shown)
        if progress != shown and (done or monotonic() - updated >= PROGRESS_EVERY):
            show_progress(artifact, progress, seen.phase or seen.status)
            shown, updated = progress, monotonic()

    return show
