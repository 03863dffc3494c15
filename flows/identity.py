"""Which refresh a flow run is."""

from prefect.context import FlowRunContext

from tasks.campaigns import Refresh


def this_refresh() -> Refresh:
    """The identity of the running flow run; both parts outlive a retry."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    started = context.flow_run.expected_start_time or context.start_time
    return Refresh(id=str(context.flow_run.id), started=started)
