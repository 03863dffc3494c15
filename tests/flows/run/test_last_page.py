"""What a flow run's log ends with, for those who watch it in a terminal."""

import logging
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows.plan import plan_refresh
from flows.run.last_page import as_text
from tasks.ui.markdown import QUOTING
from tests.conftest import Company, Save, customers
from tests.support.artifacts import all_artifacts
from tests.support.deployed import deploy


def test_text_of_a_page_leaves_out_pictures_and_what_it_quotes() -> None:
    kept = "# Welcome back: run 2", "## Compared with the last run\n\n3 customers were added."
    quoted = f"{QUOTING}\n\n**plan = basic**\n\n> Dear Alex,\n> ## welcome."
    page = "\n\n".join((kept[0], "![Rows](data:image/png;base64,AAAA)", quoted, kept[1]))
    assert as_text(page).split() == as_text("\n\n".join(kept)).split()
    assert as_text(f"{kept[0]}\n\n{quoted}").split() == as_text(kept[0]).split()


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
