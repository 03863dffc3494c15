"""The running flow run: its identity, the refresh it has claimed, the time its steps take."""

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.exceptions import Pause
from prefect.runtime.flow_run import get_scheduled_start_time

from blocks import CrmSource, DataLake, NudgescribeAccount
from blocks.rerun import NotCurrent, RerunFailed
from blocks.storage.manifest import campaign_partition
from nudgescribe.errors import NotFound, NudgeflowError
from tasks.campaigns import JournalMissing
from tasks.customers.upload import release_held_group
from tasks.journal.campaign_name import name_as_known
from tasks.journal.refresh import JOURNALS, Problem, Refresh
from tasks.refresh.claim import end_refresh, knows_flow_run, record_problem
from tasks.refresh.report import RefreshResult
from tasks.refresh.standing import Ended
from tasks.telemetry import measures
from tasks.ui.commands import abandon_command
from tasks.ui.signals import IN_PORTFOLIO, LAKE

FINAL = (NotCurrent, RerunFailed)
"""What no retry can solve: the run of the refresh is not, or no longer, the campaign's."""


def this_flow_run() -> FlowRun:
    """Return the running flow run as it was when this process started it."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return context.flow_run


def this_run(campaign_id: str | None = None) -> Refresh:
    """Return the identity, with its journal, of what the running flow run begins: a refresh, an
    export, a plan; `campaign_id` tells which campaign's, if one's.
    """
    context, flow_run = FlowRunContext.get(), this_flow_run()
    assert context is not None
    assert context.flow is not None
    started = flow_run.expected_start_time or flow_run.start_time
    assert started is not None
    journal = f"{JOURNALS}/{context.flow.name}/{flow_run.id}"
    partition = "" if campaign_id is None else campaign_partition(campaign_id)
    return Refresh(id=str(flow_run.id), started=started, journal=journal, partition=partition)


def check_reachable(what: NudgescribeAccount | CrmSource | DataLake) -> None:
    """Check that service, list or lake answers, before a flow run changes anything at Nudgescribe:
    within 10 seconds, and not with the patience of later calls.

    Raises ServiceUnreachable, SourceUnavailable, LakeUnreachable.

    Flow runs that go on where they were, and those of a portfolio, are in the middle of their work;
    for one of a schedule nobody waits. They outlast a short outage.
    """
    flow_run = this_flow_run()
    begins = flow_run.run_count <= 1 and IN_PORTFOLIO not in flow_run.labels
    if begins and not flow_run.auto_scheduled:
        what.check_reachable()


def check_lake(lake: DataLake, campaign_id: str) -> None:
    """Raise JournalMissing if the flow run's rerun was started with another lake, or the lake does
    not know of it: another store is mounted there, or none. Raises RefreshEnded if it no longer
    does.
    """
    before = this_flow_run().labels.get(LAKE)
    if before not in (None, lake.files.root):
        raise JournalMissing(
            f"This flow run's refresh is in lake {before}; its lake block has root "
            f"{lake.files.root} now."
        )
    if before and not knows_flow_run(lake, campaign_id, this_run()):
        raise JournalMissing(
            f"This flow run has started a rerun of campaign {campaign_id}, but lake "
            f"{lake.files.root} knows nothing of it."
        )


def dated(name: str) -> Callable[[], str]:
    """Return a function that names flow runs by `name` and their planned time."""

    def flow_run_name() -> str:
        return f"{name}-{get_scheduled_start_time():%Y-%m-%d-%H%M}"

    return flow_run_name


class CampaignOrGroupDeleted(NudgeflowError):
    """The campaign or the group that a refresh works on was deleted at Nudgescribe."""

    advice = "Retry this flow run; if it stays, end the refresh with that command and start anew."


class Stopwatch:
    """Measures the seconds of each step in this process; `lap` ends a step."""

    def __init__(self) -> None:
        self._last = monotonic()

    def lap(self, step: str) -> None:
        """End a step, which began when the last one ended."""
        now = monotonic()
        measures.record_step(step, round(now - self._last, 2))
        self._last = now


@dataclass(frozen=True)
class ClaimedRefresh:
    """A refresh that the running flow run has claimed, with what all its steps need."""

    campaign_id: str
    account: NudgescribeAccount
    lake: DataLake
    claimant: Refresh
    refresh: Refresh
    watch: Stopwatch
    abandoned: str = ""

    @contextmanager
    def recorded(self) -> Generator[None]:
        """Note in the journal what the block fails with; its error is raised in any case."""
        try:
            yield
        except Pause:
            raise
        except BaseException as error:
            self.note(error)
            raise

    def note(self, error: BaseException) -> None:
        """Note in the journal what the flow run fails with, unless the lake is lost; people
        recognise its campaign, if an earlier refresh has found it.
        """
        with suppress(Exception):
            self._record(error)
            name_as_known(self.lake, campaign_partition(self.campaign_id))

    def release(self, problem: str, last: RefreshResult | None = None) -> None:
        """End the refresh, which has changed nothing at Nudgescribe, with the `last` result if that
        still stands.
        """
        self._end(Ended(outcome="released", problem=problem, result=last))

    @contextmanager
    def detecting_deletion(self) -> Generator[None]:
        """Raise CampaignOrGroupDeleted if the block fails with NotFound."""
        try:
            yield
        except NotFound as error:
            command = abandon_command(self.campaign_id, self.account, self.lake)
            raise CampaignOrGroupDeleted(
                f"{error.problem} If it was deleted, the refresh cannot go on: {command}."
            ) from None

    def complete(self, result: RefreshResult) -> None:
        """End the refresh with its result."""
        measures.count_segments(
            {"matched": result.matched, "new": result.new, "orphaned": result.orphaned}
        )
        self._end(Ended(outcome="completed", result=result))

    def _end(self, ended: Ended) -> None:
        end_refresh(self.lake, self.campaign_id, self.claimant, self.refresh, ended)

    def _record(self, error: BaseException) -> None:
        if isinstance(error, FINAL):
            self._end(Ended.by("failed", Problem.of(error)))
            release_held_group(self.account, self.lake, self.refresh)
            return
        problem = Problem.of(error)
        record_problem(self.lake, self.campaign_id, self.claimant, self.refresh, problem)
