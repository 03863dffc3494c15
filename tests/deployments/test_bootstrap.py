"""A Prefect server set up by one command."""

import json
import re
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import WorkPool
from prefect.events.schemas.automations import AutomationCore

from blocks import DataLake, NudgescribeAccount
from deployments import bootstrap
from deployments import server as prefect
from deployments.automations import FORMER_NAMES
from deployments.command import app as command
from deployments.server import CALLS, DOWNLOADS, upsert_limit
from deployments.settings import SettingsWrong
from tests.deployments.conftest import ours
from tests.deployments.test_settings import ACCOUNT

# A plugin of Apprise imports it, for as long as Python has it.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

VARIABLES = {
    **ACCOUNT,
    "NUDGEFLOW_LAKE_ROOT": "s3://lake/bootstrap",
    "NUDGEFLOW_LAKE_STORAGE_OPTIONS": '{"secret": "s3cret"}',
}
AWAITED = "Nudgeflow: a refresh is awaiting review"
FORMER = FORMER_NAMES[AWAITED]
NOTIFY = {"NUDGEFLOW_NOTIFY_URL": "json://127.0.0.1:9/hook"}


def run(variables: dict[str, str]) -> dict[str, str]:
    """Return the outcome of each thing that `bootstrap` sets up."""
    lines = list(bootstrap.bootstrap(variables))
    assert not re.search("hunter2|s3cret|of-the-account|127.0.0.1", "".join(lines))
    return dict(re.split(r": (?=[^:]*$)", line, maxsplit=1) for line in lines)


def outcomes(lines: dict[str, str], kind: str) -> set[str]:
    return {outcome for thing, outcome in lines.items() if thing.startswith(kind)}


def pool() -> WorkPool:
    with get_client(sync_client=True) as client:
        return client.read_work_pool(prefect.POOL)


def test_bootstrap_creates_everything_and_later_updates_what_differs(server: None) -> None:
    first = run(VARIABLES)
    assert first["work pool nudgeflow"] == "created"
    assert (pool().type, pool().base_job_template["variables"]["type"]) == ("process", "object")
    assert first["block data-lake/main"] == "created"
    assert first["block nudgescribe-account/main"] == "created"
    assert first["block sql-crm/main"] == "skipped, no NUDGEFLOW_SQL_CRM_… is set"
    assert "nobody is notified" in first["block slack-webhook/nudgeflow"]
    assert {thing for thing in first if thing.startswith("automation")} == {
        "automation Nudgeflow: no heartbeat",
        "automation Nudgeflow: unresponsive flow runs crash",
        "automation Nudgeflow: no worker has taken a flow run, see nudgeflow doctor",
    }
    assert DataLake.load("main").options == {"secret": "s3cret"}
    account = NudgescribeAccount.load("main")
    assert account.password.get_secret_value() == "hunter2"
    assert account.calls_limit == CALLS

    with get_client(sync_client=True) as client:
        (silent,) = client.read_automations_by_name("Nudgeflow: no heartbeat")
        client.pause_automation(silent.id)
    changed = {**VARIABLES, **NOTIFY, "NUDGEFLOW_LAKE_ROOT": "/lake", "NUDGEFLOW_CALLS": "3"}
    second = run(changed)
    assert outcomes(second, "block type") == {"unchanged"}
    assert second["block data-lake/main"] == "updated"
    assert second["block nudgescribe-account/main"] == "unchanged"
    assert (second[f"limit {CALLS}"], second[f"limit {DOWNLOADS}"]) == ("updated", "unchanged")
    assert second["work pool nudgeflow"] == "unchanged"
    assert second["block slack-webhook/nudgeflow"] == "created"
    assert second["automation Nudgeflow: no heartbeat"] == "unchanged"
    assert second[f"automation {AWAITED}"] == "created"

    # What no variable sets stays, and what a person has paused stays paused.
    with get_client(sync_client=True) as client:
        (refresh,) = client.read_automations_by_name("Nudgeflow: no refresh succeeds")
        client.pause_automation(refresh.id)
        (awaited,) = client.read_automations_by_name(AWAITED)
        former = AutomationCore.model_validate(
            awaited.model_dump(exclude={"owner_resource"}) | {"name": FORMER}
        )
        client.update_automation(awaited.id, former)
        client.create_automation(former)  # as an older version does
    third = run({"NUDGEFLOW_REFRESH_DAYS": "9"})
    assert third.pop("automation Nudgeflow: no refresh succeeds") == "updated"
    assert third.pop(f"automation {AWAITED}") == "updated"
    rest = {outcome for thing, outcome in third.items() if not thing.startswith("block ")}
    assert rest == {"unchanged"}
    with get_client(sync_client=True) as client:
        there = ours()
        assert len(there) == len({each.name for each in there}) == 8
        assert {each.name for each in there if not each.enabled} == {silent.name, refresh.name}
        assert AWAITED in {each.name for each in there}
        (now,) = [each for each in there if each.id == refresh.id]
        assert now.trigger.model_dump()["within"].days == 9  # type: ignore[attr-defined]
        limits = {each.name: each.limit for each in client.read_global_concurrency_limits(100)}
    assert limits[CALLS] == 3


def test_blocks_link_to_where_the_documents_are_published(
    server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUDGEFLOW_DOCS_URL", "")  # it is as it was after the test
    run(VARIABLES | {"NUDGEFLOW_DOCS_URL": "https://docs.example.com/nudgeflow"})
    with get_client(sync_client=True) as client:
        lake = client.read_block_type_by_slug("data-lake")
    assert str(lake.logo_url) == "https://docs.example.com/nudgeflow/img/logo.png"
    assert str(lake.documentation_url) == "https://docs.example.com/nudgeflow/#the-lake"
    with pytest.raises(SettingsWrong, match="NUDGEFLOW_DOCS_URL is wrong"):
        run(VARIABLES | {"NUDGEFLOW_DOCS_URL": "docs"})


def test_bootstrap_changes_nothing_when_variables_are_wrong(
    server: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NUDGEFLOW_CAMPAIGN_ID", "c")
    monkeypatch.setenv("NUDGEFLOW_LAKE_ROOT", "/elsewhere")
    monkeypatch.setenv("NUDGEFLOW_ACCOUNT_EMAIL", "a@example.com")
    with pytest.raises(SettingsWrong, match=r"ACCOUNT_PASSWORD is missing\..* Nothing was changed"):
        command.bootstrap()
    assert capsys.readouterr().out == ""
    with get_client(sync_client=True) as client:
        assert prefect.POOL not in {each.name for each in client.read_work_pools()}
    monkeypatch.delenv("NUDGEFLOW_ACCOUNT_EMAIL")
    command.bootstrap()
    printed = capsys.readouterr().out.splitlines()
    assert "work pool nudgeflow: created" in printed
    assert DataLake.load("main").root == "/elsewhere"


def test_kubernetes_pool_gets_template_of_release(
    server: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with get_client(sync_client=True) as client:
        made = prefect.upsert_pool(client, "kubernetes")
        assert (made, pool().type) == ("created", "kubernetes")
        template = pool().base_job_template
        assert template == json.loads(prefect.TEMPLATE.read_text())
        assert prefect.upsert_pool(client, "kubernetes") == "unchanged"
        # The next release's.
        file = tmp_path / "template.json"
        template["variables"]["description"] = "new"
        file.write_text(json.dumps(template))
        monkeypatch.setattr(prefect, "TEMPLATE", file)
        assert prefect.upsert_pool(client, None) == "unchanged"
        assert prefect.upsert_pool(client, "kubernetes") == "updated"
        assert pool().base_job_template == template
        with pytest.raises(prefect.PoolDiffers, match="is of type kubernetes, not process"):
            next(bootstrap.bootstrap({"NUDGEFLOW_POOL_TYPE": "process"}))


def test_limit_is_created_updated_and_left_as_a_person_set_it(prefect_server: None) -> None:
    with get_client(sync_client=True) as client:

        def slots() -> int:
            return client.read_global_concurrency_limit_by_name(CALLS).limit

        upsert_limit(client, CALLS, 3)
        assert slots() == 3
        assert upsert_limit(client, CALLS, 3) == "unchanged"
        assert upsert_limit(client, CALLS, 4) == "updated"
        assert upsert_limit(client, CALLS) == "unchanged"
        assert slots() == 4
        client.delete_global_concurrency_limit_by_name(CALLS)
        assert upsert_limit(client, CALLS) == "created"
        assert slots() == 8
        # A person has closed it.
        client.upsert_global_concurrency_limit_by_name(CALLS, 0)
        assert upsert_limit(client, CALLS) == "unchanged"
        assert slots() == 0
        assert upsert_limit(client, CALLS, 8) == "updated"
