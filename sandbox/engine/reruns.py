"""A rerun: begun in one atomic step, worked off in four phases, each of which may be repeated."""

from collections.abc import Iterable
from hashlib import sha256
from time import sleep

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from nudgescribe import segments
from nudgescribe.contract import ComparisonSummary, Phase, Segment, SegmentLists, Status, Text
from sandbox.context import Context
from sandbox.data.lookup import fields_of
from sandbox.data.models import Campaign, Group, Job, Message, Run, new_id, now
from sandbox.data.profiles import Profiles
from sandbox.errors import JobFailed, Refusal
from sandbox.settings import Keys
from sandbox.writing.writers import Brief

APPROVED, PENDING = "Approved", "Pending"
RERUN = "rerun"


def initiate(session: Session, keys: Keys, campaign: Campaign, group: Group, user_id: str) -> Run:
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
    wanted = segments_of(session, keys, campaign, group.id)
    compared = segments.compare((message.segment for message in messages), wanted)
    lists = SegmentLists(
        matched_segments=list(compared.matched),
        new_segments=list(compared.new),
        orphaned_segments=list(compared.orphaned),
    )
    summary = ComparisonSummary(
        matched=len(compared.matched), new=len(compared.new), orphaned=len(compared.orphaned)
    )
    # A failed run keeps its number: the next one counts on from it.
    last = session.scalar(select(func.max(Run.run_number)).where(Run.campaign_id == campaign.id))
    number = (last or 0) + 1
    job = Job(kind=RERUN, subject=campaign.id, run_number=number)
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
        summary=summary.model_dump(),
        job_uid=job.uid,
        initiated_by=user_id,
    )
    session.add(run)
    _archive(session, campaign.id, current.run_number, archived=True)
    campaign.status = Status.PROCESSING
    campaign.current_run = number
    session.flush()
    return run


def work(context: Context, campaign_id: str, run_number: int) -> None:
    """Runs the four phases. Raises JobFailed when the run cannot be finished."""
    for phase, step in (
        (Phase.COPYING, _copy),
        (Phase.GENERATING, _generate),
        (Phase.ARCHIVING, _archive_orphans),
        (Phase.FINALISING, _finalise),
    ):
        with context.store.write() as session:
            session.get_one(Run, (campaign_id, run_number)).phase = phase
        sleep(context.settings.phase_seconds)
        step(context, campaign_id, run_number)


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
    """The active messages, in the order of their segments."""
    found = session.scalars(
        select(Message).where(
            Message.campaign_id == campaign.id,
            Message.run_number == campaign.current_run,
            Message.archived.is_(False),
        )
    )
    return in_order(found)


def in_order(messages: Iterable[Message]) -> list[Message]:
    return sorted(messages, key=lambda message: segments.key(message.segment))


def segments_of(session: Session, keys: Keys, campaign: Campaign, group_id: str) -> list[Segment]:
    """The segments among a group's customers, in a stable order."""
    customers = Profiles(session, keys, group_id).frames(campaign.variables)
    return segments.distinct(customers, campaign.variables)


def add_messages(
    session: Session, run: Run, texts: Iterable[tuple[Segment, str]], review_status: str
) -> None:
    """Writes segments' messages into a run; those already there stay as they are."""
    there = _keys_written(session, run)
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
        if (key := _key(segment)) not in there
    ]
    if rows:
        session.execute(insert(Message), rows)


def lists_of(run: Run) -> SegmentLists:
    return SegmentLists.model_validate(run.comparison)


def _copy(context: Context, campaign_id: str, run_number: int) -> None:
    with context.store.write() as session:
        run = session.get_one(Run, (campaign_id, run_number))
        matched = lists_of(run).matched_segments
        if not run.segment_count:
            raise JobFailed("The customer group has no customers.")
        earlier = session.execute(
            select(Message.segment_key, Message.text).where(
                Message.campaign_id == campaign_id, Message.run_number == run.previous_run
            )
        )
        approved = dict(earlier.tuples().all())
        texts = [(segment, approved[_key(segment)]) for segment in matched]
        add_messages(session, run, texts, APPROVED)


def _generate(context: Context, campaign_id: str, run_number: int) -> None:
    """Writes each text as it comes: what a chat endpoint has answered is not asked again."""
    with context.store.read() as session:
        run = session.get_one(Run, (campaign_id, run_number))
        there = _keys_written(session, run)
        wanted = [each for each in lists_of(run).new_segments if _key(each) not in there]
        campaign = session.get_one(Campaign, campaign_id)
        names = [field.field_name for field in fields_of(session, campaign.workspace_id)]
        brief = Brief(campaign.template, names)
    for some in context.generator.texts(brief, wanted):
        with context.store.write() as session:
            add_messages(session, session.get_one(Run, (campaign_id, run_number)), some, PENDING)


def _archive_orphans(context: Context, campaign_id: str, run_number: int) -> None:
    with context.store.write() as session:
        run = session.get_one(Run, (campaign_id, run_number))
        assert run.previous_run is not None
        _archive(session, campaign_id, run.previous_run, archived=True)


def _finalise(context: Context, campaign_id: str, run_number: int) -> None:
    with context.store.write() as session:
        run = session.get_one(Run, (campaign_id, run_number))
        new = lists_of(run).new_segments
        state = Status.READY_FOR_REVIEW if new else Status.READY_TO_PUBLISH
        _set_state(session, session.get_one(Campaign, campaign_id), run, state)
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


def _keys_written(session: Session, run: Run) -> set[str]:
    query = select(Message.segment_key).where(
        Message.campaign_id == run.campaign_id, Message.run_number == run.run_number
    )
    return set(session.scalars(query))


def _key(segment: Segment) -> str:
    return sha256(segments.key(segment).encode()).hexdigest()
