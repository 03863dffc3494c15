"""The running flow run: which refresh it is, and how long its steps take."""

from collections.abc import Callable
from time import monotonic

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.runtime.flow_run import get_scheduled_start_time

from tasks.campaigns import Refresh


def this_flow_run() -> FlowRun:
    """The running flow run, as it was when this process took it up."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return context.flow_run


def this_refresh() -> Refresh:
    """The identity that the running flow run gives a refresh it begins."""
    run = this_flow_run()
    started = run.expected_start_time or run.start_time
    assert started is not None
    return Refresh(id=str(run.id), started=started)


def dated(name: str) -> Callable[[], str]:
    """Names the flow runs of a flow that takes nothing to be named after, by their planned time."""

    def named() -> str:
        return f"{name}-{get_scheduled_start_time():%Y-%m-%d-%H%M}"

    return named


class Stopwatch:
    """Seconds per step, by name; a step ends with its `lap`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = monotonic()

    def lap(self, step: str) -> None:
        now = monotonic()
        self.seconds[step] = round(now - self._last, 2)
        self._last = now
