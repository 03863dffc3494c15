"""The lake's history: what each flow run came to, and which customers it changed."""

import os
from collections import Counter
from json import loads
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import polars as pl
import pytest

from blocks import DataLake, FileCrm
from blocks.storage.files import OWNER_ONLY
from blocks.storage.history import HistoryDamaged
from flows.abandon import abandon_refresh
from flows.customers import sync_customers
from flows.export import export_messages
from flows.options import RefreshOptions, SyncOptions
from flows.plan import plan_refresh
from flows.refresh import campaign_refresh
from flows.retention import RetentionOptions, lake_retention
from flows.run.review_gate import SuspensionImpossible
from tasks.customers import sync
from tasks.customers.guardrails import Guardrails, TooManyRejected
from tasks.customers.split import ListRefused
from tasks.customers.upload import UploadIncomplete
from tasks.journal.entries import PROJECT
from tests.conftest import SEEDED_CUSTOMERS, Company, Save, Saved, customers
from tests.support.deployed import Deployed, deploy, deployed, flow_run_of, retry, work
from tests.support.forks import kill_at
from tests.test_documents import code

__all__ = ["deployed"]


def options(**given: Any) -> RefreshOptions:
    return RefreshOptions(guardrails=Guardrails(max_shrink=1), **given)


def refresh(company: Company, saved: Saved, **given: Any) -> Any:
    return campaign_refresh(company.seeded.campaign_id, **saved.blocks, options=options(**given))


def rows(lake: DataLake, *columns: str) -> list[tuple[Any, ...]]:
    return lake.sync_runs().select(columns).rows()


def changes(lake: DataLake) -> dict[str, set[tuple[Any, ...]]]:
    """Who was changed, by the flow run; each of them once."""
    table = lake.sync_changes()
    assert not table.is_duplicated().any()
    columns = "customer_id", "change", "field", "code"
    return {
        str(run): {*part.select(columns).rows()}
        for (run,), part in table.group_by("run_id", maintain_order=True)
    }


def test_each_flow_run_has_one_row_with_what_it_came_to(
    reviewed_company: Company, save: Save
) -> None:
    company = reviewed_company
    saved = save(company, customers(40, invalid_every=20))
    campaign, lake = company.seeded.campaign_id, saved.lake
    blocks = {"account": saved.account, "lake": lake}
    export_messages(campaign, **blocks)
    plan_refresh(campaign, **saved.blocks, options=options())
    result = refresh(company, saved)
    refresh(company, saved, if_unchanged="skip")
    sync_customers(company.seeded.workspace_id, "Everyone", **saved.blocks)
    customers(40, invalid_every=2).write_csv(saved.crm_file)
    with pytest.raises(TooManyRejected):
        refresh(company, saved)
    with pytest.raises(ListRefused):
        plan_refresh(campaign, **saved.blocks, options=options(strict=True))
    columns = ("flow", "outcome", "extracted", "accepted", "rejected", "added", "removed", "rows")
    assert rows(lake, *columns) == [
        ("export-messages", "completed", None, None, None, None, None, SEEDED_CUSTOMERS),
        ("plan-refresh", "completed", 40, 38, 2, 0, 262, None),
        ("campaign-refresh", "completed", 40, 38, 2, 0, 262, 38),
        ("campaign-refresh", "unchanged", 40, 38, 2, None, None, None),
        ("sync-customers", "completed", 40, 38, 2, 38, 0, None),
        ("campaign-refresh", "failed", 40, 20, 20, None, None, None),
        ("plan-refresh", "failed", None, None, None, None, None, None),
    ]
    told = lake.sync_runs().row(2, named=True)
    assert told["campaign_id"] == campaign
    assert (told["previous_run"], told["run_number"]) == (1, result.run_number)
    assert told["customer_group_id"] == result.customer_group_id
    assert (told["crm"], told["project"]) == (saved.crm.block_slug, PROJECT)
    assert told["run_id"].startswith(told["flow_run_id"])
    assert told["started_at"] < told["ended_at"]
    steps = loads(told["steps"])
    assert told["seconds"] == pytest.approx(sum(steps.values()))
    assert {"extracted", "validated", "uploaded", "ended"} <= steps.keys()
    last = lake.sync_runs().row(-1, named=True)
    assert (last["error"], last["problem"][:6]) == ("ListRefused", "Row 2,")
    assert lake.sync_runs(campaign).height == 6
    assert lake.sync_runs().filter(pl.col("campaign_id").is_null()).height == 1

    told_of = changes(lake)
    of_refresh, of_sync = told_of[told["run_id"]], told_of[rows(lake, "run_id")[4][0]]
    kinds = [sorted({row[1] for row in each}) for each in (of_refresh, of_sync)]
    assert kinds == [["changed", "rejected", "removed"], ["added", "rejected"]]
    assert {row[2] for row in of_refresh if row[1] == "changed"} == {"message"}
    assert {row[1:] for row in of_sync if row[1] == "rejected"} == {
        row[1:] for row in of_refresh if row[1] == "rejected"
    }
    assert len([row for row in of_sync if row[1] == "added"]) == 38
    assert changes(lake).keys() <= {run for (run,) in rows(lake, "run_id")}

    queries(lake, campaign)


def queries(lake: DataLake, campaign: str) -> None:
    """What the document asks of it."""
    names: dict[str, Any] = {"lake": lake, "campaign_id": campaign}
    first, last = code("python history")
    exec(first, names)
    assert names["runs"].height == 7
    assert {*names["changes"]["change"]} == {"changed", "removed", "rejected"}
    exec(last, names)
    counts = names["counts"]
    assert counts.loc["sync-customers"].droplevel(0).to_dict() == {"added": 38, "rejected": 2}
    weeks, rejected = code("sql history")
    with duckdb.connect() as connection:
        connection.execute(f"SET file_search_path = '{lake.files.url('')}'")
        outcomes = sorted(row[1:3] for row in connection.execute(weeks).fetchall())
        newest = connection.execute(rejected).fetchall()
    assert outcomes == [("completed", 1), ("failed", 1), ("unchanged", 1)]
    assert {row[0] for row in newest} == {campaign, None}
    assert len({row[2] for row in newest if row[0]}) == 20
    assert all(customer and field and of for _, _, customer, field, of in newest)


def test_refresh_of_a_reused_group_tells_what_it_sent(
    reviewed_company: Company, save: Save
) -> None:
    saved = save(reviewed_company, customers(40))
    sync_customers(reviewed_company.seeded.workspace_id, "Everyone", **saved.blocks)
    moved = pl.when(pl.col("customer_id") == "000003").then(pl.lit("New")).otherwise("last_name")
    customers(41).slice(1).with_columns(moved.alias("last_name")).write_csv(saved.crm_file)
    refresh(reviewed_company, saved, group="reuse", group_name="Everyone")
    (run,) = saved.lake.sync_runs(reviewed_company.seeded.campaign_id)["run_id"]
    assert changes(saved.lake)[run] == {
        ("000001", "removed", None, None),
        ("000003", "changed", None, None),
        ("000041", "added", None, None),
    }


def test_customers_are_hashed_with_the_key_of_the_quarantine(
    company: Company, save: Save, tmp_path: Path
) -> None:
    saved = save(company, customers(30, invalid_every=30))
    saved.lake = DataLake.model_validate({"root": str(saved.root), "identifier_key": "key"})
    suppressed = FileCrm(path=str(tmp_path / "suppressed.csv"))
    suppressed.save(f"{saved.name}-suppressed")
    customers(3).write_csv(suppressed.path)
    given = SyncOptions(suppress=suppressed)
    sync_customers(company.seeded.workspace_id, "Everyone", **saved.blocks, options=given)
    (told,) = changes(saved.lake).values()
    counts = Counter(row[1] for row in told)
    assert counts == {"rejected": 1, "suppressed": 3, "added": 26}
    ids = {row[0] for run in changes(saved.lake).values() for row in run}
    expected = saved.lake.show_identifiers(customers(30)["customer_id"])
    assert ids == {*expected}
    files = [*(saved.root / "sync_changes").rglob("*.parquet")]
    assert {file.stat().st_mode & 0o777 for file in files} == {OWNER_ONLY}


def test_flow_runs_that_leave_campaign_to_another_are_skipped_and_joined(
    company: Company, save: Save
) -> None:
    saved = save(company, customers(300))
    refresh(company, saved, review="stop")
    owned = saved.lake.sync_runs()["flow_run_id"][0]
    assert rows(saved.lake, "outcome", "ended_at") == [("open", None)]
    refresh(company, saved, overlap="skip")
    assert owner_of(saved)[1:] == ("campaign-refresh", "skipped", company.seeded.campaign_id)
    campaign = company.seeded.campaign_id
    abandon_refresh(campaign, saved.account, saved.lake, "Ann", "Of no use")
    assert sorted(rows(saved.lake, "outcome")) == [("abandoned",), ("skipped",)]
    assert saved.lake.sync_runs()["flow_run_id"][0] == owned


def test_refresh_that_is_refused_at_once_is_told_as_failed(company: Company, save: Save) -> None:
    saved = save(company, customers(60))
    with pytest.raises(SuspensionImpossible):
        refresh(company, saved, review="suspend")
    told = rows(saved.lake, "flow", "outcome", "error", "campaign_id")
    campaign = company.seeded.campaign_id
    assert told == [("campaign-refresh", "failed", "SuspensionImpossible", campaign)]


def test_flow_run_that_may_not_have_the_campaign_is_told_as_failed(
    company: Company, save: Save, deployed: Deployed
) -> None:
    saved = save(company, customers(60))
    columns = "run_id", "flow", "outcome", "error", "campaign_id"
    campaign = company.seeded.campaign_id
    refresh(company, saved, review="stop")
    run = deployed.refresh(company, saved, review="stop", overlap="fail")
    for _ in range(2):
        assert deployed.work(run).is_failed()
        told = [row for row in rows(saved.lake, *columns) if row[2] == "failed"]
        assert told == [(str(run), "campaign-refresh", "failed", "RefreshOpen", campaign)]
        retry(run)
    abandon_refresh(campaign, saved.account, saved.lake, "Ann", "Of no use")
    assert deployed.work(run).is_failed()
    errors = [row[3] for row in rows(saved.lake, *columns) if row[2] == "failed"]
    assert sorted(errors) == ["RefreshOpen", "RunOpen"]  # now it has the campaign
    assert saved.lake.sync_runs()["run_id"].is_unique().all()


def test_flow_run_that_joins_another_is_told(
    company: Company, save: Save, deployed: Deployed
) -> None:
    saved = save(company, customers(60))
    suspended = deployed.refresh(company, saved, review="suspend")
    assert deployed.work(suspended).name == "Suspended"
    joins = deployed.refresh(company, saved)
    assert deployed.work(joins).name == "Joined"
    outcomes = {row[0]: row[1] for row in rows(saved.lake, "flow_run_id", "outcome")}
    assert outcomes[str(joins)] == "joined"


def owner_of(saved: Saved) -> tuple[Any, ...]:
    """The newest row."""
    last = saved.lake.sync_runs().sort("started_at")
    return last.select("flow_run_id", "flow", "outcome", "campaign_id").row(-1)


# ---- killed -----------------------------------------------------------------------------------


def synchronise(parameters: dict[str, Any]) -> None:
    sync_customers(**parameters)


def killed_at(module: str, step: str, saved: Saved, company: Company) -> UUID:
    """A synchronisation that is killed where it takes a step."""
    where = {"workspace_id": company.seeded.workspace_id, "group_name": "Everyone"}
    kill_at(module, step, synchronise, {**saved.references, **where})
    return flow_run_of(saved).id


@pytest.mark.parametrize(
    ("module", "step"),
    [
        ("tasks.customers.validate", "write_changes"),
        ("tasks.customers.validate", "_stage"),
        ("tasks.journal.history", "write_changes"),
        ("tasks.customers.sync", "record_changes"),
        ("tasks.customers.sync", "send"),
        ("tasks.customers.sync", "settled_size"),
        ("flows.customers", "report_sync"),
    ],
)
def test_sync_killed_anywhere_tells_each_change_once(
    company: Company, save: Save, module: str, step: str
) -> None:
    saved = save(company, customers(30, invalid_every=30))
    run = killed_at(module, step, saved, company)
    retry(run)
    assert work(sync_customers, run).is_completed()
    columns = "run_id", "outcome", "added", "rejected"
    after_end = module == "flows.customers"
    # The first try had ended, and the next one found nothing to do.
    assert rows(saved.lake, *columns) == [(str(run), "completed", 0 if after_end else 29, 1)]
    (told,) = changes(saved.lake).values()
    assert sorted(row[1] for row in told) == ["added"] * 29 + ["rejected"]


def test_retention_writes_row_that_was_not_written(company: Company, save: Save) -> None:
    saved = save(company, customers(30))
    run = killed_at("tasks.journal.flow_runs", "record", saved, company)
    assert saved.lake.sync_runs().is_empty()
    lake_retention(saved.lake, saved.account)
    columns = "run_id", "outcome", "added"
    (first, second) = rows(saved.lake, *columns)
    assert first == (str(run), "completed", 30)
    assert second[1] == "completed"
    before = {file: file.stat().st_mtime_ns for file in (saved.root / "sync_runs").rglob("*.parq*")}
    lake_retention(saved.lake, saved.account)
    assert rows(saved.lake, *columns)[:2] == [first, second]
    assert (
        before.items()
        <= {
            file: file.stat().st_mtime_ns for file in (saved.root / "sync_runs").rglob("*.parq*")
        }.items()
    )


def test_failed_sync_tells_what_it_changed_and_its_retry_the_rest(
    company: Company, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = save(company, customers(30))
    where = {"workspace_id": company.seeded.workspace_id, "group_name": "Everyone"}
    run = deploy(sync_customers, "tests").plan({**saved.references, **where})

    def lost(*_: object) -> None:
        raise UploadIncomplete("No.")

    with monkeypatch.context() as patched:
        patched.setattr(sync, "settled_size", lost)
        assert work(sync_customers, run).is_failed()
    assert rows(saved.lake, "outcome", "added", "error") == [("failed", 30, "UploadIncomplete")]
    customers(32).write_csv(saved.crm_file)
    retry(run)
    assert work(sync_customers, run).is_completed()
    assert rows(saved.lake, "outcome", "added") == [("completed", 2)]
    (told,) = changes(saved.lake).values()
    assert len(told) == 32


def test_old_history_goes_with_retention(company: Company, save: Save) -> None:
    saved = save(company, customers(30))
    sync_customers(company.seeded.workspace_id, "Everyone", **saved.blocks)
    long_ago = 1_600_000_000
    for file in saved.root.rglob("*"):
        os.utime(file, (long_ago, long_ago))
    options = RetentionOptions(history_days=30, dry_run=False)
    assert lake_retention(saved.lake, saved.account, options).removed["history"].count == 2
    assert rows(saved.lake, "flow") == [("lake-retention",)]
    assert saved.lake.sync_changes().is_empty()


def test_damaged_history_is_named(company: Company, save: Save) -> None:
    saved = save(company, customers(30))
    sync_customers(company.seeded.workspace_id, "Everyone", **saved.blocks)
    (file,) = (saved.root / "sync_runs").rglob("*.parquet")
    file.write_bytes(b"")
    with pytest.raises(HistoryDamaged, match=file.name):
        saved.lake.sync_runs()
