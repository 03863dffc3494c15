"""The inventory as a flow run of a deployment, and the same again when it is retried."""

import pytest
from prefect.server.schemas.states import StateType

from blocks.storage.snapshots import snapshot_name
from flows.inventory import campaign_inventory
from nudgescribe.errors import NudgeflowError
from tasks import inventory
from tests.conftest import Company, Save, customers
from tests.support.artifacts import all_artifacts
from tests.support.deployed import deploy, flow_run, retry


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
