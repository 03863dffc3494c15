"""What flow runs come to, as metrics. Before `switch_on` the functions do nothing.

Attributes are the flow, the campaign and kinds of things: never a customer's or a segment's value.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prefect.context import FlowRunContext

from tasks.telemetry.logs import current_run

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Histogram

STEP_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0, 604800.0)
"""Up to a week, which is how long a review may take."""


class _Instruments:
    def __init__(self) -> None:
        from opentelemetry import metrics

        meter = metrics.get_meter("nudgeflow")
        self.rows: Counter = meter.create_counter(
            "nudgeflow.rows", "{row}", "Rows of validated lists, by what became of them."
        )
        self.segments: Counter = meter.create_counter(
            "nudgeflow.segments", "{segment}", "Segments of completed refreshes."
        )
        self.flow_runs: Counter = meter.create_counter(
            "nudgeflow.flow_runs", "{flow_run}", "Ends and failures, as in the lake's sync_runs."
        )
        self.steps: Histogram = meter.create_histogram(
            "nudgeflow.step.duration",
            "s",
            "Steps of refreshes.",
            explicit_bucket_boundaries_advisory=STEP_SECONDS,
        )


_instruments: _Instruments | None = None


def switch_on() -> None:
    """Count from now on."""
    global _instruments
    _instruments = _instruments or _Instruments()


def count_rows(rows: Mapping[str, int]) -> None:
    """Count the rows of a list by their outcome, such as "accepted"."""
    if _instruments:
        for outcome, number in rows.items():
            _instruments.rows.add(number, {"outcome": outcome.replace(" ", "_"), **_where()})


def count_segments(segments: Mapping[str, int]) -> None:
    """Count the segments of a refresh by what the new list is to them, such as "orphaned"."""
    if _instruments:
        for state, number in segments.items():
            _instruments.segments.add(number, {"state": state, **_where()})


def count_flow_run(flow: str, outcome: str) -> None:
    """Count the end, or the failure, of what a flow run has begun."""
    if _instruments:
        _instruments.flow_runs.add(1, {**_where(), "flow": flow, "outcome": outcome})


def record_step(step: str, seconds: float) -> None:
    """Record how long a step of a refresh took."""
    if _instruments:
        _instruments.steps.record(seconds, {"step": step, **_where()})


def _where() -> dict[str, str]:
    """Return the running flow and, if it is about one, its campaign."""
    context, run = FlowRunContext.get(), current_run()
    flow = {"flow": context.flow.name} if context and context.flow else {}
    return {**flow, "campaign": run[0]} if run and run[0] else flow
