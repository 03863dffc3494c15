"""The running flow run: its identity, the refresh it has claimed, the time its steps take."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.runtime.flow_run import get_scheduled_start_time

from blocks import DataLake, NudgescribeAccount
from tasks.campaigns import Refresh
from tasks.refresh.claim import close_refresh, release_refresh
from tasks.refresh.report import RefreshResult


def this_flow_run() -> FlowRun:
    """Return the running flow run as it was when this process started it."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return context.flow_run


def this_refresh() -> Refresh:
    """Return the identity of a refresh that the running flow run begins."""
    run = this_flow_run()
    started = run.expected_start_time or run.start_time
    assert started is not None
    return Refresh(id=str(run.id), started=started)


def dated(name: str) -> Callable[[], str]:
    """Return a function that names flow runs by `name` and their planned time."""

    def flow_run_name() -> str:
        return f"{name}-{get_scheduled_start_time():%Y-%m-%d-%H%M}"

    return flow_run_name


class Stopwatch:
    """Measures seconds per step, by name; `lap` ends a step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = monotonic()

    def lap(self, step: str) -> None:
        now = monotonic()
        self.seconds[step] = round(now - self._last, 2)
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

    def close(self, result: RefreshResult | None = None, problem: str | None = None) -> None:
        """End the refresh, with a result or with a problem that no retry can solve."""
        close_refresh(self.lake, self.campaign_id, self.claimant, self.refresh, result, problem)

    def release(self) -> None:
        """Let other flow runs refresh the campaign, unless this refresh is to be continued."""
        release_refresh(self.lake, self.campaign_id, self.claimant, self.refresh)
