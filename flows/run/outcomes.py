"""Named states in which a flow run ends, beside Prefect's own."""

from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging import get_run_logger
from prefect.logging.loggers import flow_run_logger
from prefect.states import Cancelled, Completed, Failed

from nudgescribe.errors import NudgeflowError
from tasks.ui.labels import RUN_NUMBER


def completed(name: str, said: str, result: object = None) -> State[Any]:
    """A good end; what is `said` stands beside it in the UI."""
    get_run_logger().info("%s: %s", name, said)
    return Completed(name=name, message=said, data=result)


def failed(name: str, error: NudgeflowError) -> State[Any]:
    """A bad end; whoever called the flow gets the error."""
    get_run_logger().error("%s: %s", name, error)
    return Failed(name=name, message=str(error), data=error)


def name_open_rerun(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Says on the flow run which rerun goes on at the service, where none can be stopped.

    Runs in the worker's process, so what the refresh knew is read from its flow run's labels.
    """
    with get_client(sync_client=True) as client:
        latest = client.read_flow_run(flow_run.id)
        run = latest.labels.get(RUN_NUMBER)
        if run is None:
            return
        said = (
            f"Cancelled. Run {run} of campaign {latest.parameters.get('campaign_id')} cannot be "
            "stopped and goes on at Nudgescribe; the next refresh of the campaign continues it."
        )
        flow_run_logger(latest, flow).warning(said)
        client.set_flow_run_state(flow_run.id, Cancelled(message=said), force=True)
