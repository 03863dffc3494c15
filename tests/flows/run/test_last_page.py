"""What a flow run's log ends with, for those who watch it in a terminal."""

import logging
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows.plan import plan_refresh
from tests.conftest import Company, Save, customers
from tests.support.artifacts import all_artifacts
from tests.support.deployed import deploy


def test_deployed_flow_ends_its_log_with_its_page(
    company: Company,
    save: Save,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved = save(company, customers(30))
    parameters: dict[str, Any] = {"campaign_id": company.seeded.campaign_id, **saved.references}
    deployed = deploy(plan_refresh, "watched")
    with caplog.at_level(logging.INFO):
        state = deployed.work(deployed.plan(parameters))
    assert state.name == "Completed"
    said = [one.getMessage() for one in caplog.records]
    (page,) = [one for one in said if one.startswith("Plan for Welcome back\n")]
    (address,) = [one for one in said if one.startswith("This page in Prefect's UI: http")]
    assert "rows extracted " in page
    assert "data:image" not in page
    shown = {str(one.id) for one in all_artifacts() if one.type == "markdown"}
    assert address.rpartition("/")[2] in shown

    # A program that calls the flow has its result.
    caplog.clear()
    with caplog.at_level(logging.INFO):
        plan_refresh(company.seeded.campaign_id, **saved.blocks)
    assert "rows extracted " not in caplog.text

    def away(self: SyncPrefectClient, **options: Any) -> None:
        raise httpx.ConnectError("away")

    monkeypatch.setattr(SyncPrefectClient, "read_artifacts", away)
    with caplog.at_level(logging.INFO):
        assert deployed.work(deployed.plan(parameters)).name == "Completed"
    assert "cannot be shown here: ConnectError" in caplog.text
