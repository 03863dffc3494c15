"""The review of a rerun's new messages: what the reviewer has to look at."""

from datetime import UTC, datetime, timedelta

from prefect import task

from blocks import DataLake, NudgescribeAccount
from nudgescribe import segments
from nudgescribe.contract import Run, Segment, SegmentMessage, WorkspaceField
from tasks.customers.holdout import describe_other_key
from tasks.customers.validate import Validated
from tasks.journal.entries import Journal, Series, Step
from tasks.journal.refresh import Refresh
from tasks.policies import NEVER_CACHED, RETRIED
from tasks.refresh.checkpoint import Checkpoint
from tasks.refresh.run_shown import make_samples, read_fields, segment_name, show_samples
from tasks.refresh.standing import Review
from tasks.ui.artifacts import artifact_key, link_report, show_page
from tasks.ui.markdown import MOST_SEGMENTS_SHOWN, link, plain, two_columns


@task(**RETRIED)
def read_history(account: NudgescribeAccount, campaign_id: str) -> list[Run]:
    """Return the campaign's runs as they are now, newest first."""
    with account.get_client() as client:
        return client.rerun_history(campaign_id)


@task(**RETRIED)
def begin_review(
    lake: DataLake, refresh: Refresh, minutes: float, labelled: str | None
) -> datetime:
    """Return the deadline of the refresh's review, the same however often it is asked for.

    A review that version 0.1 began has the deadline that the flow run is `labelled` with.
    """
    journal = Journal(lake.files, refresh.journal)
    number, review = journal.newest(Series.REVIEW, Review)
    if review and review.until:
        return review.until
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=minutes)
    if labelled and not number and Step.FOUND not in journal.contents().steps:
        until = datetime.fromisoformat(labelled)
    journal.append(Series.REVIEW, number + 1, Review(until=until))
    return until


@task(**RETRIED)
def end_review(lake: DataLake, refresh: Refresh) -> None:
    """Note that the review is over, so that a retry begins another one."""
    journal = Journal(lake.files, refresh.journal)
    number, review = journal.newest(Series.REVIEW, Review)
    if review and review.until:
        journal.append(Series.REVIEW, number + 1, Review())


@task(**NEVER_CACHED)
def report_review(account: NudgescribeAccount, checkpoint: Checkpoint) -> str:
    """Report the run's new messages as a page in Prefect's UI, and return its markdown."""
    campaign = checkpoint.campaign
    with account.get_client() as client:
        now = client.rerun_messages(campaign.campaign_id)
        before = client.rerun_messages(campaign.campaign_id, campaign.previous_run)
        fields = read_fields(client, campaign.workspace_id)
    page = _page(checkpoint, now, before, fields, account.link_to(campaign.campaign_id))
    address = show_page(
        page,
        key=artifact_key("review", campaign.name, campaign.campaign_id),
        description=f"{plain(campaign.name)}, run {checkpoint.run.run_number}: new messages",
    )
    link_report(address, f"Run {checkpoint.run.run_number} is awaiting review.")
    return page


def _page(
    checkpoint: Checkpoint,
    now: list[SegmentMessage],
    before: list[SegmentMessage],
    fields: list[WorkspaceField],
    campaign_url: str | None,
) -> str:
    diff = segments.compare(_segments(before), _segments(now))
    texts = {segments.key(message.segment): message.message for message in now}
    new = show_samples(make_samples(fields, texts, diff.new, MOST_SEGMENTS_SHOWN))
    orphaned = [f"- {plain(segment_name(segment))}" for segment in diff.orphaned]
    counts = {
        "customers in the list": checkpoint.validated.accepted.rows,
        **_left_out(checkpoint.validated),
        "customers in new segments": checkpoint.expected.customers_in_new,
        "segments matched, message copied": len(diff.matched),
        "segments new, message to review": len(diff.new),
        "segments removed, no customers left": len(diff.orphaned),
    }
    page = "the campaign's page in the platform"
    if campaign_url:
        page = link("the campaign", campaign_url)
    # Each paragraph is one line, for the UI shows line breaks as they are.
    parts = [
        f"# {plain(checkpoint.campaign.name)}: run {checkpoint.run.run_number} is awaiting review",
        f"Approve the new messages on {page}. The refresh continues automatically once all are "
        "approved; it can also be resumed here, or stopped.",
        two_columns("", {name: f"{number:,}" for name, number in counts.items()}),
        *filter(None, [describe_other_key(checkpoint.validated.other_holdout)]),
        "## New segments",
        *(new or ["None."]),
        _more(len(diff.new)),
        "## Removed segments",
        *(orphaned[:MOST_SEGMENTS_SHOWN] or ["None."]),
        _more(len(orphaned)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _left_out(validated: Validated) -> dict[str, int]:
    """Return a row for each reason for which customers get no message, if there are any."""
    reasons = {
        "customers suppressed, not in the list": validated.suppressed,
        "customers held out, not in the list": validated.held_out,
    }
    return {reason: customers for reason, customers in reasons.items() if customers}


def _segments(messages: list[SegmentMessage]) -> list[Segment]:
    return [message.segment for message in messages]


def _more(segments: int) -> str:
    more = segments - MOST_SEGMENTS_SHOWN
    return f"… and {more:,} more." if more > 0 else ""
