"""The inventory as a flow run of a deployment, and the same again when it is retried."""

import json

import pytest
from prefect.server.schemas.states import StateType

from blocks.storage.manifest import campaign_partition
from blocks.storage.snapshots import snapshot_name
from flows.inventory import campaign_inventory
from flows.options import RefreshOptions
from flows.refresh import campaign_refresh
from nudgescribe.errors import NudgeflowError
from tasks import inventory
from tasks.customers.guardrails import Guardrails
from tests.conftest import Company, Save, customers
from tests.support.artifacts import all_artifacts
from tests.support.deployed import deploy, events_of, flow_run, flow_run_of, retry


def test_inventory_writes_same_snapshot_when_retried(
    company: Company, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = save(company, customers(1))
    deployed = deploy(campaign_inventory, "tests")
    run = deployed.plan({key: saved.references[key] for key in ("account", "lake")})

    class Lost(NudgeflowError):
        """Of a Prefect server that takes no artifacts."""

    def lost(*args: object, **options: object) -> None:
        raise Lost("No.")

    with monkeypatch.context() as patched:
        patched.setattr(inventory, "create_table_artifact", lost)
        assert deployed.work(run).type == StateType.FAILED
    planned = flow_run(run).expected_start_time
    assert planned is not None
    first = saved.lake.inventory()
    assert first.name == snapshot_name(planned)
    retry(run)
    assert deployed.work(run).type == StateType.COMPLETED
    assert [each.name for each in (saved.root / "campaigns").iterdir()] == [
        f"snapshot={first.name}"
    ]
    assert saved.lake.inventory().campaigns.equals(first.campaigns)
    assert flow_run(run).name == f"inventory-{saved.name}"
    artifacts = {one.key: one for one in all_artifacts()}
    table = artifacts[f"inventory-{saved.name}-campaigns"]
    assert (table.type, table.description) == (
        "table",
        f"Campaigns of {saved.name} on {planned:%Y-%m-%d at %H:%M} UTC: 1",
    )
    assert artifacts[f"inventory-{saved.name}"].type == "markdown"


def test_inventory_tells_a_changed_status_and_links_to_the_flow_run_of_the_last_run(
    company: Company, save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    saved = save(company, customers(120))
    campaign, there = company.seeded.campaign_id, {"account": saved.account, "lake": saved.lake}
    before = campaign_inventory(**there)
    options = RefreshOptions(guardrails=Guardrails(max_shrink=1), review="stop")
    campaign_refresh(campaign, **saved.blocks, options=options)
    refresh = flow_run_of(saved)
    after = campaign_inventory(**there)
    told = {"before": "Published", "after": "Ready for review", "since": before.snapshot}
    assert [{name: getattr(one, name) for name in told} for one in after.changes] == [told]
    (event,) = events_of("nudgeflow.campaign.status_changed", f"nudgeflow.campaign.{campaign}")
    assert event["payload"] == after.changes[0].model_dump()
    (table,) = [
        one
        for one in all_artifacts()
        if one.key == f"inventory-{saved.name}-campaigns" and str(refresh.id) in str(one.data)
    ]
    (row,) = json.loads(str(table.data))
    assert row["last run"].startswith("[2](http")
    assert row["last run"].endswith(f"/runs/flow-run/{refresh.id})")

    (saved.root / "sync_runs" / campaign_partition(campaign) / "00000001.parquet").write_bytes(b"")
    caplog.clear()
    campaign_inventory(**there)
    assert "A campaign is shown without its flow run: sync_runs/" in caplog.text
