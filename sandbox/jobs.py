"""Background work: one thread that takes jobs from the database, oldest first.

Jobs survive the service: what was running when it died is taken up again at its next start.
"""

import logging
from datetime import timedelta
from threading import Event, Thread

from sqlalchemy import select, update

from nudgescribe.contract import Status
from sandbox import exports, reruns
from sandbox.settings import Settings
from sandbox.store import Campaign, Job, Run, Store, now

log = logging.getLogger(__name__)

LOOK_EVERY = 0.2
"""Seconds between looks for a new job or a run to approve."""


class Worker:
    """Works off the jobs of one store until stopped."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._stop = Event()
        self._thread = Thread(target=self._run, name="sandbox-jobs", daemon=True)

    def start(self) -> None:
        with self._store.write() as session:
            session.execute(update(Job).where(Job.state == "running").values(state="queued"))
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._approve_due()
            if not self._work_one():
                self._stop.wait(LOOK_EVERY)

    def _work_one(self) -> bool:
        with self._store.write() as session:
            query = select(Job).where(Job.state == "queued").order_by(Job.number).limit(1)
            job = session.scalar(query)
            if job is None:
                return False
            job.state = "running"
            number, kind, campaign_id, run_number = (
                job.number,
                job.kind,
                job.campaign_id,
                job.run_number,
            )
        work = reruns.work if kind == "rerun" else exports.work
        reason = None
        try:
            work(self._store, self._settings, campaign_id, run_number)
        except reruns.JobFailed as failure:
            reason = str(failure)
        except Exception as error:  # a broken job must not take the service down
            log.exception("job %s failed", number)
            reason = f"Internal error: {type(error).__name__}."
        with self._store.write() as session:
            session.get_one(Job, number).state = "failed" if reason else "done"
            if reason and kind == "rerun":
                reruns.fail(session, campaign_id, run_number, reason)
        return True

    def _approve_due(self) -> None:
        if self._settings.approve_after is None:
            return
        due = now() - timedelta(seconds=self._settings.approve_after)
        with self._store.write() as session:
            waiting = session.execute(
                select(Campaign, Run)
                .join(Run, Run.campaign_id == Campaign.id)
                .where(Campaign.current_run == Run.run_number)
                .where(Campaign.status == Status.READY_FOR_REVIEW)
            )
            for campaign, run in waiting.all():
                if run.completed_at and run.completed_at <= due:
                    reruns.approve(session, campaign)
