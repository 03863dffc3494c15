"""What people are told of a cancelled refresh; tests/workers cancels real ones."""

from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Cancelled

from flows.refresh import campaign_refresh
from flows.run.outcomes import warn_of_open_rerun
from tasks.ui.labels import RUN_NUMBER
from tests.support.deployed import Deployed, deployed, flow_run, state_of

__all__ = ["deployed"]


@pytest.fixture
def cancelled(deployed: Deployed) -> UUID:
    run = deployed.plan({"campaign_id": "C"})
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Cancelled(), force=True)
    return run


def test_cancellation_names_the_open_rerun(cancelled: UUID) -> None:
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(cancelled, {RUN_NUMBER: 7})
    warn_of_open_rerun(campaign_refresh, flow_run(cancelled), state_of(cancelled))
    state = state_of(cancelled)
    assert (state.type.value, state.name) == ("CANCELLED", "Cancelled")
    assert (state.message or "").startswith("Cancelled. Run 7 of campaign C cannot be stopped")


def test_cancellation_keeps_state_when_no_rerun_started(cancelled: UUID) -> None:
    before = state_of(cancelled)
    warn_of_open_rerun(campaign_refresh, flow_run(cancelled), before)
    assert state_of(cancelled).id == before.id
