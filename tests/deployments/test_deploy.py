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
from deployments.deploy import NotDeployed
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
    prefect(monkeypatch, returncode=0)
    return name


def prefect(monkeypatch: pytest.MonkeyPatch, returncode: int) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        assert command[-5:-1] == ["--no-prompt", "deploy", "--all", "--prefect-file"]
        return subprocess.CompletedProcess(command, returncode)

    monkeypatch.setattr(subprocess, "run", run)


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
    told = "its parameter crm names block sql-crm/nowhere, which is not saved. Saved are: "
    (line,) = tool.deploy()
    assert line.startswith(f"plan-refresh/{listed}: {told}")
    assert "file-crm/" in line
    assert parameters_of(deployed) == {**saved.references, **others, "crm": missing}


def test_deploy_says_that_prefect_could_not(listed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prefect(monkeypatch, returncode=1)
    with pytest.raises(NotDeployed, match="Prefect could not deploy what prefect.yaml lists"):
        list(tool.deploy())
