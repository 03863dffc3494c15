"""What version 0.1.0 left half-way goes on with this one: nothing is started or made twice."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from uuid import UUID

import polars as pl
import pytest
from prefect.client.orchestration import get_client
from prefect.states import Crashed, Suspended

from blocks import CampaignPortfolio, DataLake, FileCrm, Portfolio, SqlCrm
from deployments.project import read_config
from deployments.schedules import RENAMED
from flows.review import resume_reviewed
from nudgescribe import rfc4180
from nudgescribe.contract import Status
from sandbox import seed
from tests import today
from tests.conftest import Company, Sandbox
from tests.support.clock import until
from tests.support.deployed import Deployed, changes, deployed, retry, state_of

__all__ = ["deployed"]

CUSTOMERS, GOOD = 30, 29
UNTIL = "nudgeflow.review_until"
ROOT = Path(__file__).parents[3]
STORED = json.loads((today.TODAY / "parameters.json").read_text())
ENTRYPOINTS = {
    each["name"]: each["entrypoint"] for each in read_config(ROOT / "prefect.yaml")["deployments"]
}


@dataclass(frozen=True)
class Left:
    """A refresh as it was left, in the lake, at the service and in Prefect."""

    company: Company
    lake: DataLake
    run: UUID
    ids: dict[str, str]

    @property
    def parameters(self) -> dict[str, object]:
        """Those that Prefect has of the flow run."""
        return today.told("suspended", "flow_run", self.ids)["parameters"]

    def approve(self) -> None:
        self.company.sandbox.approve(self.ids["campaign_id"]).raise_for_status()

    def messages(self) -> pl.DataFrame:
        frame = self.lake.read(self.ids["campaign_id"], 2, "polars")
        assert isinstance(frame, pl.DataFrame)
        return frame


Bring = Callable[..., Left]


@pytest.fixture
def left(
    sandbox: Sandbox, prefect_server: None, deployed: Deployed, tmp_path: Path
) -> Iterator[Bring]:
    """Brings a new campaign to the state that a refresh was left in. Its CRM is gone since."""
    root = tmp_path / "lake"

    def bring(kind: today.Kind, crm: str = "sql-crm/main", **options: object) -> Left:
        company = Company(sandbox, seed.seed(sandbox.context, CUSTOMERS))
        campaign_id, workspace_id = company.seeded.campaign_id, company.seeded.workspace_id
        ids = {
            "campaign_id": campaign_id,
            "workspace_id": workspace_id,
            "previous_group": company.seeded.customer_group_id,
        }
        parameters = today.told(kind, "flow_run", ids)["parameters"]
        parameters |= {"crm": crm, "options": {**parameters["options"], **options}}
        run = deployed.plan(parameters)
        listed = pl.read_parquet(today.accepted("suspended" if kind == "ended" else kind))
        with company.client() as client:
            group = client.create_group(workspace_id, "Ours", f"Nudgeflow refresh {run}")
            client.upload_customers(workspace_id, group.customer_group_id, rfc4180.write(listed))
            ids |= {"flow_run": str(run), "customer_group_id": group.customer_group_id}
            if kind != "open":
                client.initiate_rerun(campaign_id, group.customer_group_id)
                ids["job_uid"] = company.settle(client).job_uid or ""
            if kind == "ended":
                sandbox.approve(campaign_id).raise_for_status()
                client.publish(campaign_id)
        today.lay(kind, root, ids)
        labels = today.told(kind, "labels", ids)
        ours = {name: value for name, value in labels.items() if name.startswith("nudgeflow.")}
        if UNTIL in ours:
            ours[UNTIL] = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        with get_client(sync_client=True) as client:
            client.update_flow_run_labels(run, ours)
            state = Suspended(timeout_seconds=3600) if kind == "suspended" else Crashed()
            client.set_flow_run_state(run, state, force=True)
        company.account().save("main", overwrite=True)
        lake = DataLake(root=str(root))
        lake.save("main", overwrite=True)
        return Left(company, lake, run, ids)

    nowhere = f"sqlite:///{tmp_path / 'gone.db'}"
    SqlCrm(url=nowhere, query="SELECT * FROM customers").save("main", overwrite=True)
    yield bring
    for block in ("nudgescribe-account", "sql-crm", "data-lake"):
        with get_client(sync_client=True) as client:
            document = client.read_block_document_by_name("main", block)
            client.delete_block_document(document.id)


def test_old_suspended_refresh_continues_when_approved(left: Bring, deployed: Deployed) -> None:
    refresh = left("suspended")
    assert str(refresh.run) not in resume_reviewed()
    refresh.approve()
    assert str(refresh.run) in resume_reviewed()
    state = deployed.work(refresh.run)
    assert state.name == "Completed", state.message
    assert refresh.messages().height == GOOD
    history = [(one.run_number, one.status) for one in refresh.company.history()]
    assert history == [(2, Status.PUBLISHED), (1, Status.PUBLISHED)]
    assert len(refresh.company.groups()) == 2
    assert changes(refresh.company).count("POST /v1/messages/publish") == 1
    assert not [*Path(refresh.lake.root).glob("staging/*/*")]


@pytest.mark.parametrize("how", ["retried", "taken over"])
def test_old_refresh_continues_with_its_group(left: Bring, deployed: Deployed, how: str) -> None:
    refresh = left("open")
    run = refresh.run
    if how == "retried":
        retry(run)
    else:
        run = deployed.plan(refresh.parameters)
    state = deployed.work(run)
    assert state.name == "Suspended", state.message
    refresh.approve()
    # A server that is busy may not show the form of a review yet: the next look resumes it.
    until(lambda: str(run) in resume_reviewed())
    state = deployed.work(run)
    assert state.name == "Completed", state.message
    assert refresh.messages().height == GOOD
    assert [one.run_number for one in refresh.company.history()] == [2, 1]
    assert len(refresh.company.groups()) == 2
    assert changes(refresh.company).count("POST /v1/campaign/rerun/initiate") == 1
    if how == "taken over":
        assert state_of(refresh.run).name == "Crashed"


def test_old_complete_refresh_is_not_repeated(left: Bring, deployed: Deployed) -> None:
    refresh = left("ended")
    before = changes(refresh.company)
    assert refresh.messages().height == GOOD
    retry(refresh.run)
    state = deployed.work(refresh.run)
    assert (state.name, state.message) == ("Completed", "It was finished by an earlier try.")
    assert changes(refresh.company) == before


def test_next_refresh_begins_after_old_complete_one(
    left: Bring, deployed: Deployed, tmp_path: Path
) -> None:
    refresh, listed = left("ended"), tmp_path / "customers.csv"
    pl.read_parquet(today.accepted("suspended")).write_csv(listed)
    FileCrm(path=str(listed)).save("main", overwrite=True)
    run = deployed.plan({**refresh.parameters, "crm": "file-crm/main"})
    state = deployed.work(run)
    assert state.name == "Completed", state.message
    assert [one.run_number for one in refresh.company.history()] == [3, 2, 1]
    assert len(refresh.company.groups()) == 3
    diff = refresh.lake.diff(refresh.ids["campaign_id"], 2, 3)
    assert (diff.added, diff.removed, diff.changed, diff.unchanged) == (0, 0, 0, GOOD)


@pytest.fixture
def main_blocks(prefect_server: None, company: Company, tmp_path: Path) -> Iterator[None]:
    """The blocks that version 0.1.0's parameters name."""
    saved = [
        company.account(),
        SqlCrm.model_validate({"url": "sqlite://", "query": "SELECT 1"}),
        DataLake(root=str(tmp_path)),
        CampaignPortfolio(portfolio=Portfolio()),
    ]
    for block in saved:
        block.save("main", overwrite=True)
    yield
    for block in saved:
        type(block).delete("main")


@pytest.mark.parametrize(
    ("deployment", "stored"),
    [(name, stored) for name, each in STORED.items() for stored in each.values()],
)
def test_old_parameters_are_accepted(
    main_blocks: None, deployment: str, stored: dict[str, object]
) -> None:
    module, _, name = ENTRYPOINTS[RENAMED[deployment]].rpartition(".")
    getattr(import_module(module), name).validate_parameters(stored)


def test_deployment_of_version_01_has_a_successor() -> None:
    for deployment in STORED:
        flow = deployment.partition("/")[0].replace("-", "_")
        assert ENTRYPOINTS[RENAMED[deployment]].endswith(f".{flow}")
