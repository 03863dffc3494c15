"""Deployments bound to the saved blocks that their parameters refer to."""

import subprocess
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect.client.orchestration import get_client

from blocks.saved import slug_reference
from deployments import deploy as tool
from deployments.deploy import BlocksMissing
from flows.plan import plan_refresh
from tests.conftest import Company, Save, customers
from tests.support.deployed import Deployed, deploy


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the one deployment that prefect.yaml lists, and `prefect deploy` has made."""
    name = f"bound-{uuid4()}"
    entry = {"name": name, "entrypoint": "flows.plan.plan_refresh"}
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump({"deployments": [entry]}))
    monkeypatch.chdir(tmp_path)

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        assert command[-5:-1] == ["--no-prompt", "deploy", "--all", "--prefect-file"]
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return name


def parameters_of(deployed: Deployed) -> dict[str, Any]:
    with get_client(sync_client=True) as client:
        return client.read_deployment(deployed.deployment_id).parameters


def test_deploy_turns_slugs_into_references_of_saved_blocks(
    company: Company, save: Save, listed: str
) -> None:
    saved = save(company, customers(1))
    slugs = {name: slug_reference(block.block_slug) for name, block in saved.blocks.items()}
    others = {"campaign_id": "c", "options": {"review": "suspend"}}
    deployed = deploy(plan_refresh, listed, parameters={**slugs, **others})
    for _ in range(2):
        assert list(tool.deploy()) == []
        assert parameters_of(deployed) == {**saved.references, **others}
    missing = slug_reference("sql-crm/nowhere")
    deploy(plan_refresh, listed, parameters={**slugs, **others, "crm": missing})
    with pytest.raises(BlocksMissing) as caught:
        list(tool.deploy())
    told = f"sql-crm/nowhere, named by {listed}, is not saved. Saved are: "
    assert str(caught.value).startswith(told)
    assert "file-crm/" in str(caught.value)
    assert parameters_of(deployed) == {**saved.references, **others, "crm": missing}
