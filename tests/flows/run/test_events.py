"""What flows tell the world at their end: events and assets, as Prefect's server keeps them."""

import json
from time import monotonic
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.events.worker import EventsWorker

from blocks import DataLake
from flows.customers import sync_customers
from flows.export import export_messages
from flows.options import SyncOptions
from tasks.customers.guardrails import ListGuardrails
from tasks.ui.assets import messages
from tests.conftest import SEEDED_CUSTOMERS, Company, Save, customers

SECONDS = 60.0


def events_of(name: str, resource: str, count: int = 1) -> list[dict[str, Any]]:
    """Events of this name, as soon as there are so many: the server takes its time."""
    EventsWorker.drain_all()
    wanted = {"event": {"name": [name]}, "resource": {"id": [resource]}}
    end = monotonic() + SECONDS
    with get_client(sync_client=True) as client:
        while monotonic() < end:
            answer = client.request("POST", "/events/filter", json={"filter": wanted})
            found: list[dict[str, Any]] = answer.json()["events"]
            if len(found) >= count:
                return found
    raise TimeoutError(f"No {name} of {resource}.")


def test_export_emits_event_and_materializes_asset(company: Company, save: Save) -> None:
    saved, campaign = save(company, customers(1)), company.seeded.campaign_id
    account = company.account(campaign_url="https://service.example/{campaign_id}")
    saved.save_account(account)
    for _ in range(2):
        (run,) = export_messages(campaign, account=saved.account, lake=saved.lake)
    # The second one fetched nothing: what happened once is told once.
    asset = f"lake://{saved.name}/messages/{campaign}"
    made = events_of("prefect.asset.materialization.succeeded", asset, 2)
    assert [one["payload"]["rows"] for one in made] == [SEEDED_CUSTOMERS] * 2
    source = f"nudgescribe://{saved.name}/campaigns/{campaign}"
    assert source in {one["prefect.resource.id"] for one in made[0]["related"]}
    (event,) = events_of("nudgeflow.campaign.exported", f"nudgeflow.campaign.{campaign}")
    manifest = f"messages/campaign_id={campaign}/run_number=1/_manifest-00000.json"
    assert (saved.root / manifest).exists()
    assert event["payload"] == {
        "campaign": campaign,
        "lake": saved.name,
        "run_number": 1,
        "folder": run.folder,
        "manifest": manifest,
        "files": 1,
        "rows": SEEDED_CUSTOMERS,
        "bytes": run.bytes,
    }
    kinds = {one["prefect.resource.role"] for one in event["related"]}
    assert {"flow", "flow-run"} <= kinds
    with get_client(sync_client=True) as client:
        artifacts = {one.key: str(one.data) for one in client.read_artifacts()}
    assert f"(https://service.example/{campaign})" in artifacts[f"campaign-{campaign}"]


@pytest.mark.parametrize("name", ["C/1", "50 %", "a?b#c", "Ü"])
def test_asset_key_is_valid_for_any_id(name: str) -> None:
    assert messages(DataLake(root="."), name).key.startswith("lake://not-saved/messages/")


def test_sync_emits_event_and_materializes_group(company: Company, save: Save) -> None:
    saved = save(company, customers(3))
    workspace = company.seeded.workspace_id
    sync_customers(
        workspace,
        "Synchronised",
        **saved.blocks,
        options=SyncOptions(guardrails=ListGuardrails(max_shrink=1)),
    )
    with company.client() as client:
        (group,) = [
            each.customer_group_id
            for each in client.list_groups(workspace)
            if each.name == "Synchronised"
        ]
    (event,) = events_of("nudgeflow.customers.synced", f"nudgeflow.group.{group}")
    none = dict.fromkeys(("changed", "removed", "unchanged", "rejected"), 0)
    assert event["payload"] == {"added": 3, **none}
    asset = f"nudgescribe://{saved.name}/groups/{group}"
    (made,) = events_of("prefect.asset.materialization.succeeded", asset)
    crm = f"crm://{saved.crm.block_slug.replace('/', '/lists/')}"
    assert crm in {one["prefect.resource.id"] for one in made["related"]}
    assert "customer_id" not in json.dumps([event, made])
