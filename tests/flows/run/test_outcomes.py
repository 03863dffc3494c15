"""How flow runs end: what people are told of a cancelled one, what an error cannot hide."""

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Cancelled

from flows.refresh import campaign_refresh
from flows.run.outcomes import warn_of_open_rerun
from tasks.customers.guardrails import TooFewRows
from tasks.ui.signals import RUN_NUMBER
from tests.conftest import Company, Save, customers
from tests.support.deployed import Deployed, deployed, flow_run, state_of

__all__ = ["deployed"]


def test_cancellation_names_the_rerun_once_it_has_started(deployed: Deployed) -> None:
    """tests/workers cancels real ones."""
    run = deployed.plan({"campaign_id": "C"})
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Cancelled(), force=True)
        before = state_of(run)
        warn_of_open_rerun(campaign_refresh, flow_run(run), before)
        assert state_of(run).id == before.id
        client.update_flow_run_labels(run, {RUN_NUMBER: 7})
    warn_of_open_rerun(campaign_refresh, flow_run(run), before)
    state = state_of(run)
    assert (state.type.value, state.name) == ("CANCELLED", "Cancelled")
    assert (state.message or "").startswith("Cancelled. Run 7 of campaign C cannot be stopped")


def test_error_of_ours_is_logged_without_a_traceback(
    deployed: Deployed, company: Company, save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    saved = save(company, customers(3))
    state = deployed.work(deployed.refresh(company, saved, guardrails={"min_rows": 4}))
    assert state.name == "Failed"
    failures = [each for each in caplog.records if each.levelname == "ERROR"]
    said = failures[-1].getMessage()
    assert said.startswith("TooFewRows: 3 rows were accepted, fewer than 4.")
    assert said.endswith(TooFewRows.advice)
    assert not [each for each in failures if each.exc_info or each.exc_text]
