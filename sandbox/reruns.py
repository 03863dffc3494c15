"""A rerun: begun in one atomic step, worked off in four phases, each of which may be repeated."""

from time import sleep

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from nudgescribe import segments
from nudgescribe.contract import Phase, Segment, SegmentLists, Status, Text
from sandbox.composing import compose
from sandbox.customers import profiles
from sandbox.faults import Refusal
from sandbox.settings import Settings
from sandbox.store import Campaign, Group, Job, Message, Run, Store, now

APPROVED, PENDING = "Approved", "Pending"
PROFILES_AT_ONCE = 50_000


class JobFailed(Exception):
    """Ends a job for good; its text is the reason people read, and holds no customer data."""


def initiate(session: Session, campaign: Campaign, group: Group, user_id: str) -> Run:
    """Begins a rerun on `group`: run record, campaign state, archive of the old run, job.

    Raises Refusal unless the campaign and all its current messages are Published.
    """
    if campaign.status != Status.PUBLISHED:
        raise Refusal(400, Text.NOT_PUBLISHED)
    current = current_run(session, campaign)
    messages = current_messages(session, campaign)
    if any(message.approval_stage != Status.PUBLISHED for message in messages):
        raise Refusal(400, Text.UNPUBLISHED_MESSAGES)
    if group.id == current.group_id:
        raise Refusal(400, Text.CURRENT_RUN)
    wanted = segments_of(session, campaign, group.id)
    compared = segments.compare((message.segment for message in messages), wanted)
    lists = SegmentLists(
        matched_segments=list(compared.matched),
        new_segments=list(compared.new),
        orphaned_segments=list(compared.orphaned),
    )
    # A failed run keeps its number: the next one counts on from it.
    last = session.scalar(select(func.max(Run.run_number)).where(Run.campaign_id == campaign.id))
    number = (last or 0) + 1
    job = Job(kind="rerun", campaign_id=campaign.id, run_number=number)
    session.add(job)
    session.flush()
    run = Run(
        campaign_id=campaign.id,
        run_number=number,
        previous_run=current.run_number,
        status=Status.PROCESSING,
        group_id=group.id,
        group_name=group.name,
        segment_count=len(wanted),
        comparison=lists.model_dump(),
        job_uid=job.uid,
        initiated_by=user_id,
    )
    session.add(run)
    _archive(session, campaign.id, current.run_number, archived=True)
    campaign.status = Status.PROCESSING
    campaign.current_run = number
    session.flush()
    return run


def work(store: Store, settings: Settings, campaign_id: str, run_number: int) -> None:
    """Runs the four phases. Raises JobFailed when the run cannot be finished."""
    for phase, step in (
        (Phase.COPYING, _copy),
        (Phase.GENERATING, _generate),
        (Phase.ARCHIVING, _archive_orphans),
        (Phase.FINALISING, _finalise),
    ):
        with store.write() as session:
            session.get_one(Run, (campaign_id, run_number)).phase = phase
        sleep(settings.phase_seconds)
        with store.write() as session:
            run = session.get_one(Run, (campaign_id, run_number))
            step(session, session.get_one(Campaign, campaign_id), run)


def fail(session: Session, campaign_id: str, run_number: int, reason: str) -> None:
    """Ends a run *Failed* and puts the campaign back on its previous run."""
    run = session.get_one(Run, (campaign_id, run_number))
    run.status, run.error, run.completed_at = Status.FAILED, reason, now()
    campaign = session.get_one(Campaign, campaign_id)
    assert run.previous_run is not None
    campaign.current_run = run.previous_run
    campaign.status = Status.PUBLISHED
    _archive(session, campaign_id, run_number, archived=True)
    _archive(session, campaign_id, run.previous_run, archived=False)


def approve(session: Session, campaign: Campaign) -> None:
    """What reviewers do in the platform: every message of the current run is approved."""
    if campaign.status != Status.READY_FOR_REVIEW:
        raise Refusal(400, "Campaign is not ready for review.")
    run = current_run(session, campaign)
    _set_state(session, campaign, run, Status.READY_TO_PUBLISH)
    for message in current_messages(session, campaign):
        message.review_status = APPROVED


def publish(session: Session, campaign: Campaign) -> None:
    """Ready to publish -> Published, with all current messages."""
    campaign.published_at = now()
    _set_state(session, campaign, current_run(session, campaign), Status.PUBLISHED)


def current_run(session: Session, campaign: Campaign) -> Run:
    return session.get_one(Run, (campaign.id, campaign.current_run))


def current_messages(session: Session, campaign: Campaign) -> list[Message]:
    query = select(Message).where(
        Message.campaign_id == campaign.id,
        Message.run_number == campaign.current_run,
        Message.archived.is_(False),
    )
    return list(session.scalars(query.order_by(Message.segment_key)))


def segments_of(session: Session, campaign: Campaign, group_id: str) -> list[Segment]:
    """The segments among a group's customers, in a stable order."""
    found: dict[str, Segment] = {}
    for batch in profiles(session, group_id, campaign.variables, PROFILES_AT_ONCE):
        for segment, _ in segments.count(batch.lazy(), campaign.variables):
            found[segments.key(segment)] = segment
    return [found[name] for name in sorted(found)]


def add_messages(
    session: Session, run: Run, texts: list[tuple[Segment, str]], review_status: str
) -> None:
    """Writes segments' messages into a run; those already there stay as they are."""
    for segment, text in texts:
        row = Message(
            campaign_id=run.campaign_id,
            run_number=run.run_number,
            segment_key=segments.key(segment),
        )
        if session.get(Message, (row.campaign_id, row.run_number, row.segment_key)):
            continue
        row.segment, row.text = dict(segment), text
        row.review_status, row.approval_stage = review_status, Status.READY_FOR_REVIEW
        session.add(row)


def _copy(session: Session, campaign: Campaign, run: Run) -> None:
    matched = _lists(run).matched_segments
    if not matched and not _lists(run).new_segments:
        raise JobFailed("The customer group has no customers.")
    earlier = {
        message.segment_key: message.text
        for message in session.scalars(
            select(Message).where(
                Message.campaign_id == campaign.id, Message.run_number == run.previous_run
            )
        )
    }
    texts = [(segment, earlier[segments.key(segment)]) for segment in matched]
    add_messages(session, run, texts, APPROVED)


def _generate(session: Session, campaign: Campaign, run: Run) -> None:
    new = _lists(run).new_segments
    texts = [(segment, compose(campaign.template, segment)) for segment in new]
    add_messages(session, run, texts, PENDING)


def _archive_orphans(session: Session, campaign: Campaign, run: Run) -> None:
    assert run.previous_run is not None
    _archive(session, campaign.id, run.previous_run, archived=True)


def _finalise(session: Session, campaign: Campaign, run: Run) -> None:
    new = _lists(run).new_segments
    _set_state(session, campaign, run, Status.READY_FOR_REVIEW if new else Status.READY_TO_PUBLISH)
    run.completed_at = now()


def _set_state(session: Session, campaign: Campaign, run: Run, status: Status) -> None:
    campaign.status = run.status = status
    session.execute(
        update(Message)
        .where(Message.campaign_id == campaign.id, Message.run_number == run.run_number)
        .values(approval_stage=status)
    )


def _archive(session: Session, campaign_id: str, run_number: int, *, archived: bool) -> None:
    session.execute(
        update(Message)
        .where(Message.campaign_id == campaign_id, Message.run_number == run_number)
        .values(archived=archived)
    )


def _lists(run: Run) -> SegmentLists:
    return SegmentLists.model_validate(run.comparison)
