"""Named states in which a flow run ends, in addition to Prefect's own."""

from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging import get_run_logger
from prefect.logging.loggers import flow_run_logger
from prefect.states import Cancelled, Completed, Failed

from nudgescribe.errors import NudgeflowError
from tasks.ui.signals import RUN_NUMBER


def completed(name: str, message: str, result: object = None) -> State[Any]:
    """Return a completed state of this name; Prefect's UI shows the message beside it."""
    get_run_logger().info("%s: %s", name, message)
    return Completed(name=name, message=message, data=result)


def failed(name: str, error: NudgeflowError) -> State[Any]:
    """Return a failed state of this name; a program that calls the flow gets the error."""
    get_run_logger().error("%s: %s", name, error)
    return Failed(name=name, message=str(error), data=error)


def warn_of_open_rerun(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Set a message on a cancelled flow run that its rerun goes on at Nudgescribe.

    Prefect calls this in the worker's process, so the run number comes from the flow run's labels.
    """
    with get_client(sync_client=True) as client:
        latest = client.read_flow_run(flow_run.id)
        run = latest.labels.get(RUN_NUMBER)
        if run is None:
            return
        message = (
            f"Cancelled. Run {run} of campaign {latest.parameters.get('campaign_id')} cannot be "
            "stopped and goes on at Nudgescribe; the next refresh of the campaign continues it."
        )
        flow_run_logger(latest, flow).warning(message)
        client.set_flow_run_state(flow_run.id, Cancelled(message=message), force=True)
