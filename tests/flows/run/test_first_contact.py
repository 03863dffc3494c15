"""What flows say when nobody answers at their first call, and when later ones get no answer."""

from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRun

from blocks import DataLake, SqlCrm
from blocks.crm.errors import SourceUnavailable
from blocks.storage.errors import LakeError, LakeUnreachable
from deployments.environment import free_port
from flows.customers import sync_customers
from flows.export import export_messages
from flows.inventory import campaign_inventory
from flows.options import RefreshOptions
from flows.plan import plan_refresh
from flows.portfolio import portfolio_refresh
from flows.refresh import campaign_refresh
from flows.run.flow_run import this_flow_run
from nudgescribe.contract import PUBLISH
from nudgescribe.errors import ServerError, ServiceUnreachable
from nudgescribe.retry import RetryPolicy
from tasks.campaigns import publish_run
from tasks.customers.guardrails import Guardrails
from tasks.refresh.report import RefreshResult
from tasks.ui.signals import IN_PORTFOLIO
from tests.conftest import Company, Save, Saved, customers
from tests.support.addresses import silent, web_server
from tests.support.deployed import changes, deploy, flow_run_of, retry, work

CAMPAIGN = {"campaign_id": "c"}
FLOWS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "refresh": (campaign_refresh, CAMPAIGN),
    "plan": (plan_refresh, CAMPAIGN),
    "sync": (sync_customers, {"workspace_id": "w", "group_name": "g"}),
    "portfolio": (portfolio_refresh, {"workspaces": ["w"]}),
    "export": (export_messages, CAMPAIGN),
    "inventory": (campaign_inventory, {}),
}
WITHOUT_LIST = ("export", "inventory")


@pytest.fixture
def saved(company: Company, save: Save) -> Saved:
    return save(company, customers(3))


def run(name: str, saved: Saved) -> Any:
    flow, parameters = FLOWS[name]
    blocks = dict(saved.blocks)
    if name in WITHOUT_LIST:
        del blocks["crm"]
    return flow(**parameters, **blocks)


def journals(saved: Saved) -> list[Path]:
    return [*saved.root.glob("refreshes/*")]


@pytest.mark.parametrize("name", FLOWS)
def test_service_that_speaks_http_is_told_at_the_first_call(
    saved: Saved, company: Company, name: str
) -> None:
    secure = company.sandbox.url.replace("http://", "https://")
    saved.save_account(company.account(base_url=secure))
    host = secure.removeprefix("https://")
    with pytest.raises(ServiceUnreachable, match=f"{host} speaks http, not https") as caught:
        run(name, saved)
    assert "Correct base_url in the account block" in str(caught.value)
    assert journals(saved) == []


@pytest.mark.parametrize("name", ["refresh", "plan", "sync"])
def test_database_that_is_away_is_told_with_its_host(
    saved: Saved, company: Company, name: str
) -> None:
    host = f"127.0.0.1:{free_port()}"
    url = f"postgresql://reader:s3cret@{host}/crm"
    crm = SqlCrm.model_validate({"url": url, "query": "SELECT 1"})
    crm.save(saved.name, overwrite=True)
    seeded = company.seeded
    where = {"campaign_id": seeded.campaign_id}
    if name == "sync":
        where = {"workspace_id": seeded.workspace_id, "group_name": "g"}
    flow, _ = FLOWS[name]
    with pytest.raises(SourceUnavailable, match=f"url: {host} refuses connections") as caught:
        flow(**where, **{**saved.blocks, "crm": crm})
    assert "s3cret" not in str(caught.value)
    assert changes(company) == []


@pytest.mark.parametrize("kind", ["postgresql", "mysql+pymysql"])
def test_database_that_never_answers_is_told_with_its_host(kind: str) -> None:
    with silent() as host:
        url = f"{kind}://reader:s3cret@{host}/crm"
        crm = SqlCrm.model_validate({"url": url, "query": "SELECT 1"})
        begun = monotonic()
        with pytest.raises(SourceUnavailable, match=f"url: {host} takes connections, but has not"):
            crm.check_reachable()
    assert monotonic() - begun < 10


def test_lake_whose_endpoint_is_closed_is_told_before_anything_else(saved: Saved) -> None:
    host = f"127.0.0.1:{free_port()}"
    saved.lake = DataLake.model_validate(
        {"root": "s3://b/lake", "storage_options": {"endpoint_url": f"http://{host}", "key": "k"}}
    )
    saved.lake.save(saved.name, overwrite=True)
    with pytest.raises(LakeUnreachable, match=f"endpoint_url: {host} refuses connections"):
        run("refresh", saved)


@pytest.mark.parametrize("root", ["file", "file/lake", "/proc/lake"])
def test_lake_that_cannot_be_made_is_told_before_the_service_is_asked(
    saved: Saved, company: Company, tmp_path: Path, root: str
) -> None:
    (tmp_path / "file").touch()
    saved.lake = DataLake(root=str(tmp_path / root))
    saved.lake.save(saved.name, overwrite=True)
    why = "/file is a file where a folder belongs|The folder /proc/lake/.* cannot be made"
    with pytest.raises(LakeError, match=why):
        run("refresh", saved)
    assert changes(company) == []


def test_certificate_of_a_lake_is_for_its_own_library_to_judge(tmp_path: Path) -> None:
    with web_server(tmp_path) as host:
        options = {"client_kwargs": {"endpoint_url": f"https://{host}", "verify": False}}
        lake = DataLake.model_validate({"root": "s3://b/lake", "storage_options": options})
        lake.check_reachable()


def test_flow_run_in_the_middle_of_its_work_is_as_patient_as_ever(
    reviewed_company: Company, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is tried again leaves an outage to the retries of its tasks."""
    company, saved = reviewed_company, save(reviewed_company, customers(250))
    options = RefreshOptions(guardrails=Guardrails(max_shrink=1))
    company.sandbox.fault(PUBLISH, status=503)
    attempts = RetryPolicy(attempts=1)
    monkeypatch.setattr("nudgescribe.client.RetryPolicy", lambda: attempts)
    monkeypatch.setattr(publish_run, "retries", 0)
    try:
        with pytest.raises(ServerError):
            campaign_refresh(company.seeded.campaign_id, **saved.blocks, options=options)
    finally:
        company.sandbox.no_faults()
    monkeypatch.setattr("nudgescribe.reach.find_obstacle", lambda *_, **__: "is away")
    failed = flow_run_of(saved)
    retry(failed.id)
    assert work(campaign_refresh, failed.id).is_completed()
    with pytest.raises(ServiceUnreachable, match="is away"):
        campaign_refresh(company.seeded.campaign_id, **saved.blocks, options=options)


def test_flow_run_of_a_schedule_is_patient_from_the_start(
    reviewed_company: Company, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_a_schedule() -> FlowRun:
        return this_flow_run().model_copy(update={"auto_scheduled": True})

    monkeypatch.setattr("nudgescribe.reach.find_obstacle", lambda *_, **__: "is away")
    monkeypatch.setattr("flows.run.flow_run.this_flow_run", of_a_schedule)
    company, saved = reviewed_company, save(reviewed_company, customers(250))
    options = RefreshOptions(guardrails=Guardrails(max_shrink=1))
    result = campaign_refresh(company.seeded.campaign_id, **saved.blocks, options=options)
    assert isinstance(result, RefreshResult)


def test_flow_run_of_a_portfolio_leaves_an_outage_to_its_tasks(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nudgescribe.reach.find_obstacle", lambda *_, **__: "is away")
    deployed = deploy(campaign_inventory, "of-a-portfolio")
    blocks = {name: saved.references[name] for name in ("account", "lake")}
    alone = deployed.work(deployed.plan(blocks))
    assert "is away" in str(alone.message)
    assert deployed.work(deployed.plan(blocks, labels={IN_PORTFOLIO: True})).is_completed()
