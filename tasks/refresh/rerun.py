"""The rerun: initiated once, waited for until it is done and reviewed."""

from collections.abc import Callable
from functools import partial
from time import monotonic

from prefect import task
from prefect.logging import get_run_logger

from blocks import CampaignRerun, DataLake, NudgescribeAccount
from blocks.rerun import RerunJob
from nudgescribe.contract import ComparisonSummary, Phase, Run, Status
from tasks.campaigns import CampaignRef, RunRef
from tasks.customers.upload import GroupRef
from tasks.customers.validate import Validated
from tasks.journal.entries import Journal, Step
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED
from tasks.refresh.checkpoint import Checkpoint
from tasks.refresh.preview import Preview
from tasks.ui.artifacts import artifact_key, start_progress, update_progress
from tasks.ui.console import StatusLine
from tasks.ui.markdown import plain
from tasks.ui.progress import SECONDS_BETWEEN_UPDATES
from tasks.ui.signals import ACCOUNT, JOB_UID, LAKE, RUN_NUMBER, add_labels

REVIEWED = (Status.READY_TO_PUBLISH, Status.PUBLISHED)

_PROGRESS: dict[str, float] = {
    phase: 100 * number / len(Phase) for number, phase in enumerate(Phase)
}


@task(**RETRIED)
def initiate_rerun(
    account: NudgescribeAccount,
    lake: DataLake,
    refresh: Refresh,
    campaign: CampaignRef,
    validated: Validated,
    expected: Preview,
    group: GroupRef,
) -> Checkpoint:
    """Initiate the campaign's rerun on the group, or adopt the one that an earlier try of this
    refresh has initiated. Raises NotCurrent.
    """

    def initiate() -> Checkpoint:
        job = _new_rerun(account, campaign, group).trigger()
        get_run_logger().info("Rerun: run %s, job %s", job.run_number, job.job_uid)
        run = _run_of(job, campaign, group)
        return Checkpoint(
            campaign=campaign, validated=validated, expected=expected, group=group, run=run
        )

    return Journal(lake.files, refresh.journal).step(Step.INITIATED, Checkpoint, initiate)


def note_started_rerun(account: NudgescribeAccount, lake: DataLake, refresh: Refresh) -> bool:
    """Return whether a refresh that nobody works on has started its rerun, though its journal does
    not tell so: the lake was lost at that moment. Then it is noted here.
    """
    if not refresh.journal:
        return False  # version 0.1 has left it
    journal = Journal(lake.files, refresh.journal)
    group = journal.find(Step.GROUPED, GroupRef)
    if group is None:
        return False
    campaign = journal.find(Step.FOUND, CampaignRef)
    validated = journal.find(Step.VALIDATED, Validated)
    expected = journal.find(Step.COMPARED, Preview)
    if not (campaign and validated and expected):
        return False
    job = _new_rerun(account, campaign, group).find()
    if job is None:
        return False
    run = _run_of(job, campaign, group)
    checkpoint = Checkpoint(
        campaign=campaign, validated=validated, expected=expected, group=group, run=run
    )
    journal.create(Step.INITIATED, checkpoint)
    return True


@task(**RETRIED)
def wait_for_rerun(
    account: NudgescribeAccount, lake: DataLake, run: RunRef, minutes: float, name: str
) -> ComparisonSummary | None:
    """Wait until the rerun's job is done, and return the service's comparison of its segments; the
    campaign's `name` is for people.

    Raises RerunFailed with the service's reason, RerunTimedOut, RunRemoved.
    """
    add_labels(
        {
            ACCOUNT: account.block_name,
            LAKE: lake.files.root,
            RUN_NUMBER: run.run_number,
            JOB_UID: run.job_uid or "",
        }
    )
    with _line(run) as line:
        job = _rerun(account, run, minutes).attach(run.run_number, _progress(run, line, name))
        job.wait_for_completion()
    return job.fetch_result().comparison_summary


@task(**RETRIED)
def wait_for_review(account: NudgescribeAccount, run: RunRef, minutes: float) -> None:
    """Wait until people have approved the run's new messages. Raises RerunTimedOut, RunRemoved."""
    with _line(run) as line:
        job = _rerun(account, run, minutes).attach(run.run_number, partial(_update_line, line))
        job.wait_until(*REVIEWED)


@task(**RETRIED)
def read_run(account: NudgescribeAccount, run: RunRef) -> Run:
    """Return the run as the campaign's history shows it now. Raises RunRemoved."""
    return _rerun(account, run).attach(run.run_number).fetch_result()


def _new_rerun(
    account: NudgescribeAccount, campaign: CampaignRef, group: GroupRef
) -> CampaignRerun:
    return CampaignRerun(
        account=account,
        campaign_id=campaign.campaign_id,
        customer_group_id=group.customer_group_id,
        after_run=campaign.previous_run,
    )


def _run_of(job: RerunJob, campaign: CampaignRef, group: GroupRef) -> RunRef:
    return RunRef(
        campaign_id=campaign.campaign_id,
        run_number=job.run_number,
        customer_group_id=group.customer_group_id,
        job_uid=job.job_uid,
    )


def _rerun(account: NudgescribeAccount, run: RunRef, minutes: float = 240) -> CampaignRerun:
    return CampaignRerun(
        account=account,
        campaign_id=run.campaign_id,
        customer_group_id=run.customer_group_id,
        deadline_minutes=minutes,
    )


def _line(run: RunRef) -> StatusLine:
    return StatusLine(f"Waiting for run {run.run_number}")


def _update_line(line: StatusLine, run: Run) -> None:
    phase = run.phase if run.status == Status.PROCESSING else None
    line.update(f"Waiting for run {run.run_number}: {phase or run.status}")


def _progress(run: RunRef, line: StatusLine, name: str) -> Callable[[Run], None]:
    key = artifact_key("rerun", name, run.campaign_id)
    artifact = start_progress(key, f"Run {run.run_number}")
    shown, updated = 0.0, monotonic()

    def update(seen: Run) -> None:
        nonlocal shown, updated
        _update_line(line, seen)
        done = seen.status != Status.PROCESSING
        progress = 100.0 if done else _PROGRESS.get(seen.phase or "", shown)
        if progress != shown and (done or monotonic() - updated >= SECONDS_BETWEEN_UPDATES):
            update_progress(artifact, progress, plain(seen.phase or seen.status))
            shown, updated = progress, monotonic()

    return update
