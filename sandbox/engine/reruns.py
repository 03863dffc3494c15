"""Reruns: begun in one atomic step, processed in four phases that may each be repeated."""

from collections.abc import Iterable
from hashlib import sha256
from time import sleep

from fastapi import HTTPException
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from nudgescribe import segments
from nudgescribe.contract import ComparisonSummary, Phase, Segment, SegmentLists, Status, Text
from sandbox.context import Context
from sandbox.data.lookup import account_id_of, fields_of
from sandbox.data.models import Campaign, Group, Job, Message, Run, new_id, now
from sandbox.data.profiles import Profiles
from sandbox.engine import quota
from sandbox.errors import JobFailed
from sandbox.settings import Keys
from sandbox.writing.configuration import AiConfiguration, writer_for
from sandbox.writing.writers import Brief

APPROVED, PENDING = "Approved", "Pending"
RERUN = "rerun"


def initiate(session: Session, keys: Keys, campaign: Campaign, group: Group, user_id: str) -> Run:
    """Begin a rerun on `group`: run record, campaign state, archive of the old run, queued job.

    Raises HTTPException, 400, if the campaign or one of its messages is not Published, or `group`
    is the current one.
    """
    previous = current_run(session, campaign)
    messages = current_messages(session, campaign)
    _check_can_rerun(campaign, previous, messages, group)
    diff = segments.compare(
        (message.segment for message in messages), segments_of(session, keys, campaign, group.id)
    )
    run = _queue_run(session, campaign, group, diff, user_id)
    _set_archived(session, campaign.id, previous.run_number, archived=True)
    campaign.status = Status.PROCESSING
    campaign.current_run = run.run_number
    session.flush()
    return run


def _check_can_rerun(
    campaign: Campaign, current: Run, messages: Iterable[Message], group: Group
) -> None:
    if campaign.status != Status.PUBLISHED:
        raise HTTPException(400, Text.NOT_PUBLISHED)
    if any(message.approval_stage != Status.PUBLISHED for message in messages):
        raise HTTPException(400, Text.UNPUBLISHED_MESSAGES)
    if group.id == current.group_id:
        raise HTTPException(400, Text.CURRENT_RUN)


def _queue_run(
    session: Session,
    campaign: Campaign,
    group: Group,
    diff: segments.SegmentDiff,
    user_id: str,
) -> Run:
    """Add the record of a run with the next number, and its job."""
    matched, new, orphaned = map(list, (diff.matched, diff.new, diff.orphaned))
    lists = SegmentLists(matched_segments=matched, new_segments=new, orphaned_segments=orphaned)
    summary = ComparisonSummary(matched=len(matched), new=len(new), orphaned=len(orphaned))
    # A failed run keeps its number: the next one counts on from it.
    last = session.scalar(select(func.max(Run.run_number)).where(Run.campaign_id == campaign.id))
    number = (last or 1) + 1
    job = Job(kind=RERUN, subject=campaign.id, run_number=number, user_id=user_id)
    session.add(job)
    session.flush()
    run = Run(
        campaign_id=campaign.id,
        run_number=number,
        previous_run=campaign.current_run,
        status=Status.PROCESSING,
        group_id=group.id,
        group_name=group.name,
        segment_count=len(matched) + len(new),
        comparison=lists.model_dump(),
        summary=summary.model_dump(),
        job_uid=job.uid,
        initiated_by=user_id,
    )
    session.add(run)
    return run


def run_job(context: Context, campaign_id: str, run_number: int) -> None:
    """Process the four phases of a run. Raises JobFailed if it cannot be finished."""
    for phase, process in (
        (Phase.COPYING, _copy),
        (Phase.GENERATING, _generate),
        (Phase.ARCHIVING, _archive_orphans),
        (Phase.FINALISING, _finalise),
    ):
        with context.store.write() as session:
            session.get_one(Run, (campaign_id, run_number)).phase = phase
        sleep(context.settings.phase_seconds)
        process(context, campaign_id, run_number)


def fail(session: Session, campaign_id: str, run_number: int, reason: str) -> None:
    """End a run as *Failed* and put the campaign back on its previous run."""
    run = session.get_one(Run, (campaign_id, run_number))
    run.status, run.error, run.completed_at = Status.FAILED, reason, now()
    campaign = session.get_one(Campaign, campaign_id)
    assert run.previous_run is not None
    campaign.current_run = run.previous_run
    campaign.status = Status.PUBLISHED
    _set_archived(session, campaign_id, run_number, archived=True)
    _set_archived(session, campaign_id, run.previous_run, archived=False)


def approve(session: Session, campaign: Campaign) -> None:
    """Approve every message of the current run, as reviewers do in the platform.

    Raises HTTPException, 400, unless the campaign is ready for review.
    """
    if campaign.status != Status.READY_FOR_REVIEW:
        raise HTTPException(400, "Campaign is not ready for review.")
    run = current_run(session, campaign)
    _set_status(session, campaign, run, Status.READY_TO_PUBLISH)
    for message in current_messages(session, campaign):
        message.review_status = APPROVED


def publish(session: Session, campaign: Campaign) -> None:
    """Set the campaign, its current run and the run's messages to *Published*."""
    campaign.published_at = now()
    _set_status(session, campaign, current_run(session, campaign), Status.PUBLISHED)


def current_run(session: Session, campaign: Campaign) -> Run:
    """Return the campaign's current run."""
    run = find_run(session, campaign, campaign.current_run)
    assert run is not None
    return run


def find_run(session: Session, campaign: Campaign, run_number: int) -> Run | None:
    """Return a run of the campaign, None if it has no such run."""
    run = session.get(Run, (campaign.id, run_number))
    return _first_run(session, campaign) if run is None and run_number == 1 else run


def runs_of(session: Session, campaign: Campaign) -> list[Run]:
    """Return the campaign's runs, newest first."""
    query = select(Run).where(Run.campaign_id == campaign.id).order_by(Run.run_number.desc())
    runs = list(session.scalars(query))
    is_stored = runs and runs[-1].run_number == 1  # by an earlier version
    return runs if is_stored else [*runs, _first_run(session, campaign)]


def _first_run(session: Session, campaign: Campaign) -> Run:
    """Return Run #1, synthesised: it is the campaign as it was before its first rerun."""
    query = select(func.count(), func.max(Message.created_at)).where(
        Message.campaign_id == campaign.id, Message.run_number == 1
    )
    count, last = session.execute(query).one()
    group = session.get(Group, campaign.group_id) if campaign.group_id else None
    return Run(
        campaign_id=campaign.id,
        run_number=1,
        status=campaign.status if campaign.current_run == 1 else Status.PUBLISHED,
        group_id=campaign.group_id,
        group_name=group.name if group else None,
        segment_count=count,
        started_at=campaign.created_at,
        completed_at=last,
    )


def current_messages(session: Session, campaign: Campaign) -> list[Message]:
    """Return the current run's active messages, sorted by segment."""
    messages = session.scalars(
        select(Message).where(
            Message.campaign_id == campaign.id,
            Message.run_number == campaign.current_run,
            Message.archived.is_(False),
        )
    )
    return sort_by_segment(messages)


def sort_by_segment(messages: Iterable[Message]) -> list[Message]:
    """Return messages in the order of their segments."""
    return sorted(messages, key=lambda message: segments.key(message.segment))


def segments_of(session: Session, keys: Keys, campaign: Campaign, group_id: str) -> list[Segment]:
    """Return the segments among a group's customers, in a stable order."""
    customers = Profiles(session, keys, group_id).frames(campaign.variables)
    return segments.distinct(customers, campaign.variables)


def add_messages(
    session: Session, run: Run, texts: Iterable[tuple[Segment, str]], review_status: str
) -> None:
    """Add segments' messages to a run; messages that it already has stay as they are."""
    existing = _existing_keys(session, run)
    rows = [
        {
            "campaign_id": run.campaign_id,
            "run_number": run.run_number,
            "segment_key": key,
            "id": new_id(),
            "segment": dict(segment),
            "text": text,
            "review_status": review_status,
            "approval_stage": Status.READY_FOR_REVIEW,
            "archived": False,
        }
        for segment, text in texts
        if (key := _key(segment)) not in existing
    ]
    if rows:
        session.execute(insert(Message), rows)


def segment_lists(run: Run) -> SegmentLists:
    """Return the run's comparison with the one before it."""
    return SegmentLists.model_validate(run.comparison)


def _copy(context: Context, campaign_id: str, run_number: int) -> None:
    with context.store.write() as session:
        run = session.get_one(Run, (campaign_id, run_number))
        matched = segment_lists(run).matched_segments
        if not run.segment_count:
            raise JobFailed("The customer group has no customers.")
        previous = session.execute(
            select(Message.segment_key, Message.text).where(
                Message.campaign_id == campaign_id, Message.run_number == run.previous_run
            )
        )
        approved = dict(previous.all())
        texts = [(segment, approved[_key(segment)]) for segment in matched]
        add_messages(session, run, texts, APPROVED)


def _generate(context: Context, campaign_id: str, run_number: int) -> None:
    """Write each text as it comes, so that a repeated phase asks no chat endpoint twice.

    The messages are charged when all of them are there, once. Raises JobFailed.
    """
    with context.store.read() as session:
        run = session.get_one(Run, (campaign_id, run_number))
        new = segment_lists(run).new_segments
        if not new or run.charged:
            return
        existing = _existing_keys(session, run)
        wanted = [each for each in new if _key(each) not in existing]
        campaign = session.get_one(Campaign, campaign_id)
        account_id = account_id_of(session, campaign)
        quota.check(session, context.settings, account_id, len(new))
        names = [field.field_name for field in fields_of(session, campaign.workspace_id)]
        brief = Brief(campaign.template, names)
        configuration = AiConfiguration.model_validate(campaign.ai or {})
    writer = writer_for(configuration, context.settings.chat)
    for texts in writer.write(brief, wanted):
        with context.store.write() as session:
            run = session.get_one(Run, (campaign_id, run_number))
            add_messages(session, run, texts, PENDING)
    with context.store.write() as session:
        quota.charge(session, context.settings, account_id, generated=len(new))
        session.get_one(Run, (campaign_id, run_number)).charged = True


def _archive_orphans(context: Context, campaign_id: str, run_number: int) -> None:
    with context.store.write() as session:
        run = session.get_one(Run, (campaign_id, run_number))
        assert run.previous_run is not None
        _set_archived(session, campaign_id, run.previous_run, archived=True)


def _finalise(context: Context, campaign_id: str, run_number: int) -> None:
    with context.store.write() as session:
        run = session.get_one(Run, (campaign_id, run_number))
        new = segment_lists(run).new_segments
        status = Status.READY_FOR_REVIEW if new else Status.READY_TO_PUBLISH
        _set_status(session, session.get_one(Campaign, campaign_id), run, status)
        run.completed_at = now()


def _set_status(session: Session, campaign: Campaign, run: Run, status: Status) -> None:
    campaign.status = run.status = status
    session.execute(
        update(Message)
        .where(Message.campaign_id == campaign.id, Message.run_number == run.run_number)
        .values(approval_stage=status)
    )


def _set_archived(session: Session, campaign_id: str, run_number: int, *, archived: bool) -> None:
    session.execute(
        update(Message)
        .where(Message.campaign_id == campaign_id, Message.run_number == run_number)
        .values(archived=archived)
    )


def _existing_keys(session: Session, run: Run) -> set[str]:
    query = select(Message.segment_key).where(
        Message.campaign_id == run.campaign_id, Message.run_number == run.run_number
    )
    return set(session.scalars(query))


def _key(segment: Segment) -> str:
    return sha256(segments.key(segment).encode()).hexdigest()
