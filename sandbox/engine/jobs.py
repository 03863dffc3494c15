"""The job queue: threads that take jobs from the database, oldest first, one per subject at a time.

Jobs survive the service: those that were running when it died, or that broke, are queued again at
its next start.
"""

import logging
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from threading import Event, Thread

from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from nudgescribe.contract import Status
from sandbox.context import Context
from sandbox.data.models import Campaign, Job, Run, User, now
from sandbox.engine import exports, reruns, uploads
from sandbox.errors import JobFailed
from sandbox.middleware.audit import write_entry

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
"""Between two polls for a new job or a run to approve."""
THREADS = 2


class Worker:
    """Threads that process the jobs of one service until stopped."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._stop = Event()
        tasks = [self._process_next] * THREADS
        if (seconds := context.settings.approve_after) is not None:
            tasks.append(partial(self._approve_due, timedelta(seconds=seconds)))
        self._threads = [Thread(target=self._repeat, args=(task,)) for task in tasks]

    def start(self) -> None:
        """Queue interrupted jobs again and start the threads."""
        with self._context.store.write() as session:
            interrupted = Job.state.in_(["running", "broken"])
            session.execute(update(Job).where(interrupted).values(state="queued"))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads after their current jobs."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, task: Callable[[], bool]) -> None:
        while not self._stop.is_set():
            try:
                did_work = task()
            except SQLAlchemyError as error:  # the database may be back at the next poll
                log.error("The database cannot be asked for jobs: %s", type(error).__name__)
                did_work = False
            if not did_work:
                self._stop.wait(POLL_SECONDS)

    def _process_next(self) -> bool:
        """Process the oldest job; return whether there was one."""
        job = self._claim()
        if job is None:
            return False
        state, note = _run(self._context, job)
        with self._context.store.write() as session:
            if job.kind == reruns.RERUN and state != "done":
                assert job.run_number is not None
                assert note is not None
                reruns.fail(session, job.subject, job.run_number, note)
                state = "failed"  # the campaign is back on its previous run: that is final
            values = {"state": state, "note": note}
            session.execute(update(Job).where(Job.number == job.number).values(values))
            user = session.get(User, job.user_id) if job.user_id else None
            account_id = user.account_id if user else None
        write_entry(
            self._context.settings.audit_file,
            user_id=job.user_id,
            account_id=account_id,
            ip=None,
            endpoint=f"job {job.kind}",
            job_uid=job.uid,
            status=state,
        )
        return True

    def _claim(self) -> Job | None:
        """Return the oldest queued job whose subject has no running one, marked as running."""
        busy = select(Job.subject).where(Job.state == "running")
        query = select(Job).where(Job.state == "queued", Job.subject.not_in(busy))
        with self._context.store.read() as session:
            if session.scalars(query.limit(1)).first() is None:
                return None
        with self._context.store.write() as session:
            job = session.scalars(query.order_by(Job.number).limit(1)).one_or_none()
            if job is not None:
                job.state = "running"
                session.flush()
                session.expunge(job)
            return job

    def _approve_due(self, delay: timedelta) -> bool:
        """Approve runs that have waited for `delay`; return whether there were any."""
        due = (
            select(Campaign, Run)
            .join(Run, Run.campaign_id == Campaign.id)
            .where(Campaign.current_run == Run.run_number)
            .where(Campaign.status == Status.READY_FOR_REVIEW)
            .where(Run.completed_at <= now() - delay)
        )
        with self._context.store.read() as session:
            if session.execute(due).first() is None:
                return False
        with self._context.store.write() as session:
            for campaign, _ in session.execute(due).all():
                reruns.approve(session, campaign)
        return True


def _run(context: Context, job: Job) -> tuple[str, str | None]:
    """Run a job; return the state it ends in and a note for users."""
    try:
        return "done", _dispatch(context, job)
    except JobFailed as failure:
        return "failed", str(failure)
    except Exception as error:  # a broken job must not take the service down
        log.error("Job %s broke: %s", job.uid, type(error).__name__)
        return "broken", f"Internal error: {type(error).__name__}."


def _dispatch(context: Context, job: Job) -> str | None:
    if job.kind == uploads.UPLOAD:
        return uploads.run_job(context, job.uid, job.subject)
    assert job.run_number is not None
    if job.kind == reruns.RERUN:
        return reruns.run_job(context, job.subject, job.run_number)
    return exports.run_job(context, job.subject, job.run_number)
