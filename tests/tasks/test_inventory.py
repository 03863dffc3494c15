"""Snapshots of campaigns and runs: what the service says, as a whole or not at all."""

import re
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import uuid4

import duckdb
import httpx
import pandas as pd
import polars as pl
import pytest

from blocks import DataLake, NudgescribeAccount
from blocks.storage.files import LakeError
from blocks.storage.snapshots import CAMPAIGN_COLUMNS, RUN_COLUMNS
from nudgescribe import contract
from nudgescribe.contract import Status
from nudgescribe.errors import NotFound, Retryable, ServerError
from sandbox.data.models import Campaign, Run, Workspace
from tasks import inventory
from tasks.inventory import (
    CampaignDeleted,
    Inventory,
    StatusChange,
    report_inventory,
    take_inventory,
)
from tasks.journal.refresh import Refresh
from tests.conftest import Company, Through
from tests.support.response_tamperer import ResponseTamperer
from tests.tasks.conftest import Local, new_refresh
from tests.test_documents import LAKE, code

ENDED = datetime.now(UTC) - timedelta(days=10)


@dataclass
class Office:
    """A company's account, what people make in it in the platform, and snapshots of that."""

    company: Company
    local: Local
    refresh: Refresh

    @property
    def lake(self) -> DataLake:
        return self.local.lake

    def workspace(self, name: str) -> str:
        with self.company.sandbox.context.store.write() as session:
            workspace = Workspace(account_id=self.company.seeded.account_id, name=name)
            session.add(workspace)
            session.flush()
            return workspace.id

    def campaign(self, name: str, *runs: str, workspace: str | None = None) -> str:
        """A campaign on the last of its runs, given by their states."""
        seeded, (*_, status) = self.company.seeded, runs
        with self.company.sandbox.context.store.write() as session:
            campaign = Campaign(
                workspace_id=workspace or seeded.workspace_id,
                name=name,
                status=status,
                current_run=len(runs),
                variables=[],
                template="",
                end_date=date(2027, 1, 31),
            )
            session.add(campaign)
            session.flush()
            session.add_all(
                Run(
                    campaign_id=campaign.id,
                    run_number=number,
                    status=status,
                    group_id=seeded.customer_group_id,
                    group_name="NA",
                    segment_count=10**9,
                    summary={"matched": 7, "new": number, "orphaned": 0} if number > 1 else None,
                    completed_at=None if status == Status.DRAFT else ENDED,
                    error="No customers." if status == Status.FAILED else None,
                )
                for number, status in enumerate(runs, 1)
            )
            return campaign.id

    def take(self, *workspaces: str, **refresh: Any) -> Inventory:
        """A snapshot; `refresh` are changes of the flow run that takes it."""
        taker = self.refresh.model_copy(update=refresh)
        return take_inventory.fn(self.local.account, self.lake, list(workspaces), taker)

    def set_status(self, campaign_id: str, status: Status) -> None:
        with self.company.sandbox.context.store.write() as session:
            session.get_one(Campaign, campaign_id).status = status

    def report(self, taken: Inventory) -> tuple[Any, str]:
        """The table and the page."""
        report_inventory.fn(self.local.account, self.lake, taken, self.refresh)
        artifacts = self.local.artifacts
        return artifacts["inventory-main-campaigns"], artifacts["inventory-main"]

    def files(self) -> list[str]:
        return sorted(file.path for file in self.lake.files.list_files(""))


@pytest.fixture
def office(company: Company, local: Local, refresh: Refresh) -> Office:
    return Office(company, local, refresh)


def test_snapshot_holds_campaigns_and_runs_of_service(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "HISTORIES_AT_ONCE", 2)
    office.campaign("", Status.DRAFT)
    office.campaign("000123", Status.PUBLISHED, Status.FAILED, Status.READY_FOR_REVIEW)
    office.campaign("NA\r\n\ufeff|ü", Status.DRAFT, workspace=office.workspace("Second"))
    taken = office.take()
    file = f"snapshot=2026-11-21T06-30-00Z/%s-{office.refresh.short}.parquet"
    assert office.files() == [f"{kind}/{file % kind}" for kind in ("campaigns", "runs")]
    assert taken == Inventory(
        snapshot="2026-11-21T06-30-00Z",
        campaigns=4,
        runs=6,
        statuses={"Draft": 2, "Ready for review": 1, "Published": 1},
        campaigns_path=f"{office.lake.root}/campaigns/{file % 'campaigns'}",
        runs_path=f"{office.lake.root}/runs/{file % 'runs'}",
    )
    assert list(taken.statuses) == ["Draft", "Ready for review", "Published"]
    name, campaigns, runs = office.lake.inventory()
    assert (name, campaigns.schema, runs.schema) == (taken.snapshot, CAMPAIGN_COLUMNS, RUN_COLUMNS)
    with office.company.client() as client:
        workspaces = client.campaigns()
        histories = {each: client.rerun_history(each) for each in campaigns["campaign_id"]}
    expected = [
        {**dict(campaign), "workspace_id": one.workspace_id, "workspace_name": one.name}
        for one in workspaces
        for campaign in one.campaigns
    ]
    assert campaigns.drop("taken_at").sort("campaign_id").to_dicts() == sorted(
        expected, key=lambda one: one["campaign_id"]
    )
    assert campaigns["taken_at"].n_unique() == 1
    sizes = ("matched", "new", "orphaned")
    for row in runs.to_dicts():
        (run,) = (
            run for run in histories[row["campaign_id"]] if run.run_number == row["run_number"]
        )
        told = {name: row[name] for name in dict(run) if name != "comparison_summary"}
        summary = run.comparison_summary
        assert told == {name: value for name, value in run if name != "comparison_summary"}
        assert [row[size] for size in sizes] == [getattr(summary, size, None) for size in sizes]
    assert sum(map(len, histories.values())) == runs.height


def test_snapshot_has_a_column_for_every_field() -> None:
    assert contract.Campaign.model_fields.keys() <= set(CAMPAIGN_COLUMNS)
    run = {*contract.Run.model_fields, *contract.ComparisonSummary.model_fields}
    assert run - {"comparison_summary"} | {"campaign_id"} == set(RUN_COLUMNS)


def test_empty_snapshot_has_the_same_columns(office: Office) -> None:
    taken = office.take(office.workspace("Empty"))
    assert (taken.campaigns, taken.runs, taken.statuses) == (0, 0, {})
    for path, columns in (
        (taken.campaigns_path, CAMPAIGN_COLUMNS),
        (taken.runs_path, RUN_COLUMNS),
    ):
        assert pl.read_parquet_schema(path) == columns
        assert duckdb.read_parquet(path).fetchall() == []
    assert pd.read_parquet(taken.campaigns_path)["taken_at"].dt.tz is not None
    table, page = office.report(taken)
    assert table == ()
    assert "| campaigns | 0 |" in page


def test_snapshot_is_refused_when_workspace_is_unknown(office: Office) -> None:
    with pytest.raises(NotFound, match="Account main has no workspace w1, w2. Check the id"):
        office.take("w2", office.company.seeded.workspace_id, "w1")
    assert office.files() == []
    with pytest.raises(LakeError, match="No snapshot of the campaigns is in the lake"):
        office.lake.inventory()


def test_snapshot_is_retried_when_service_fails_or_campaign_was_deleted(
    office: Office, through: Through
) -> None:
    campaign = office.company.seeded.campaign_id
    gone = httpx.Response(404, json={"message": "Campaign not found"})
    through(ResponseTamperer({contract.RERUN_HISTORY: [gone]}))
    with pytest.raises(CampaignDeleted, match=f"Campaign {campaign} is listed, but") as failed:
        office.take()
    assert isinstance(failed.value, Retryable)
    office.campaign("Other", Status.DRAFT)
    through(ResponseTamperer({contract.RERUN_HISTORY: [None, httpx.Response(503)]}))
    with pytest.raises(ServerError) as unavailable:
        office.take()
    assert isinstance(unavailable.value, Retryable)
    assert office.files() == []
    assert office.take().runs == 2


def test_half_snapshot_is_invisible_and_written_again(office: Office) -> None:
    office.take(started=office.refresh.started - timedelta(days=1))
    blocked = office.local.folder / "lake/campaigns/snapshot=2026-11-21T06-30-00Z"
    blocked.write_bytes(b"")
    with pytest.raises(LakeError, match="is a file where a folder belongs"):
        office.take()
    assert len(office.files()) == 4
    blocked.unlink()
    blocked.mkdir()
    assert office.lake.inventory().name == "2026-11-20T06-30-00Z"
    with pytest.raises(LakeError, match="Snapshot 2026-11-21T06-30-00Z is not in the lake"):
        office.lake.inventory("2026-11-21T06-30-00Z")
    office.campaign("Meanwhile", Status.DRAFT)
    assert office.take().runs == office.lake.inventory().runs.height == 2


def test_complete_snapshot_is_not_written_again(office: Office) -> None:
    taken = office.take()
    held = office.lake.files.read(office.files()[0])
    office.campaign("Meanwhile", Status.DRAFT)
    assert office.take() == taken
    assert office.lake.files.read(office.files()[0]) == held


def test_snapshots_of_same_second_do_not_collide(office: Office) -> None:
    """Each of a workspace of its own."""
    second = office.workspace("Second")
    office.campaign("Theirs", Status.DRAFT, workspace=second)
    elsewhere = office.refresh.started.astimezone(timezone(timedelta(hours=5, minutes=30)))
    ours = office.take(office.company.seeded.workspace_id)
    theirs = office.take(
        second, second, id=str(uuid4()), started=elsewhere + timedelta(microseconds=1)
    )
    assert (ours.snapshot, ours.campaigns) == (theirs.snapshot, theirs.campaigns)
    assert ours.campaigns == 1
    names = office.lake.inventory(ours.snapshot).campaigns["name"]
    assert sorted(names) == ["Theirs", "Welcome back"]


def test_histories_are_read_concurrently_within_account_limit(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        office.campaign(str(number), Status.DRAFT)
    calls, together = count(), Barrier(2, timeout=20)
    real = NudgescribeAccount.get_client

    @contextmanager
    def gate() -> Iterator[None]:
        if next(calls):  # the list comes first, alone
            together.wait()
        yield

    monkeypatch.setattr(NudgescribeAccount, "get_client", lambda self: real(self, calls=gate))
    assert office.take().runs == 6
    assert next(calls) == 1 + 6


def test_inventory_report_has_table_and_chart(
    office: Office, through: Through, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.local.account.campaign_url = "https://app.example.com/{campaign_id}"
    old = office.campaign("Old *one*\n| [x](y)" + " again" * 20, Status.PUBLISHED, Status.FAILED)
    without = httpx.Response(200, json={"runs": []})
    office.campaign("Odd", "On | hold")
    with office.company.client() as client:
        (workspace,) = client.campaigns()
    turns = [each.campaign_id for each in workspace.campaigns]
    turn = turns.index(office.company.seeded.campaign_id)
    monkeypatch.setattr(inventory, "READERS", 1)
    through(ResponseTamperer({contract.RERUN_HISTORY: [None] * turn + [without]}))
    taken = office.take()
    rows, page = office.report(taken)
    assert len(rows) == 3
    (row,) = (each for each in rows if old in each["page"])
    assert row == {
        "campaign": r"Old \*one\* \| \[x\](y) again agai…",
        "page": f"[open](https://app.example.com/{old})",
        "workspace": "Marketing",
        "status": "Failed",
        "current run": 2,
        "last run": 2,
        "its status": "Failed",
        "at": f"{ENDED:%Y-%m-%d}",
        "days since": 10,
    }
    # What people look for is within a window of 1280 pixels.
    assert [*row][:5] == ["campaign", "status", "last run", "its status", "days since"]
    # Who has no run at all comes last.
    assert (rows[-1]["current run"], rows[-1]["status"]) == (1, "Published")
    assert [rows[-1][each] for each in ("last run", "its status", "at", "days since")] == [None] * 4
    for line in (
        "| campaigns | 3 |",
        "| Published | 1 |",
        "| Failed | 1 |",
        r"| On \| hold | 1 |",
        "| runs | 3 |",
        f"Saved to\n\n```\n{taken.campaigns_path}\n{taken.runs_path}\n```",
    ):
        assert line in page
    (picture,) = re.findall(r"data:image/png;base64,([^)]+)", page)
    assert b64decode(picture).startswith(b"\x89PNG")


def later(office: Office, hours: int) -> dict[str, Any]:
    """Another flow run, so many hours later."""
    other = new_refresh()
    return {"id": other.id, "started": office.refresh.started + timedelta(hours=hours)}


def test_changed_status_is_told_against_the_newest_snapshot_that_has_the_campaign(
    office: Office,
) -> None:
    second = office.workspace("Second")
    changed = office.campaign("Changed", Status.DRAFT)
    office.campaign("Elsewhere", Status.DRAFT, workspace=second)
    first = office.take()
    assert first.changes == []
    office.set_status(changed, Status.READY_FOR_REVIEW)
    office.campaign("New", Status.DRAFT)
    assert office.take(second, **later(office, 1)).changes == []
    office.refresh = office.refresh.model_copy(update=later(office, 2))
    taken = office.take()
    change = StatusChange(
        campaign_id=changed,
        campaign="Changed",
        workspace_id=office.company.seeded.workspace_id,
        before="Draft",
        after="Ready for review",
        since=first.snapshot,
    )
    assert taken.changes == [change]
    assert "- Changed: Draft, now Ready for review\n" in office.report(taken)[1]
    assert office.take(**later(office, 3)).changes == []


def test_damaged_snapshot_before_is_passed_over(office: Office) -> None:
    campaign = office.campaign("Changed", Status.DRAFT)
    first = office.take()
    damaged = office.take(**later(office, 1))
    Path(damaged.campaigns_path).write_bytes(b"")
    office.set_status(campaign, Status.PUBLISHED)
    (change,) = office.take(**later(office, 2)).changes
    assert (change.since, change.before) == (first.snapshot, "Draft")


def test_inventory_table_is_cut_when_long(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.campaign("Old", Status.PUBLISHED)
    taken = office.take()
    office.report(taken)
    said = office.local.descriptions
    assert said["inventory-main-campaigns"] == "Campaigns of main on 2026-11-21 at 06:30 UTC: 2"
    monkeypatch.setattr(inventory, "MOST_CAMPAIGNS_SHOWN", 1)
    ((row,), _) = office.report(taken)
    assert row["campaign"] == "Old"
    assert said["inventory-main-campaigns"].endswith(
        f", the 1 longest without a run. All are in {taken.campaigns_path}"
    )


def test_documented_queries_return_snapshot(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.campaign("Autumn", Status.PUBLISHED, Status.READY_FOR_REVIEW)
    for planned in (datetime(2026, 11, 23, 6, tzinfo=UTC), datetime(2026, 11, 24, 6, tzinfo=UTC)):
        office.take(started=planned)
    names: dict[str, Any] = {"lake": office.lake}
    for block in code("python inventory"):
        exec(block, names)
    assert (names["campaigns"].height, names["runs"].height) == (2, 3)
    assert sorted(names["runs_of_each"]) == [1, 1, 2, 2]
    (sql,) = code("sql inventory")
    monkeypatch.chdir(office.local.folder / "lake")
    autumn, other = ("Autumn", 2, "Ready for review"), ("Welcome back", 1, "Published")
    assert [(row[0], row[2], row[3], row[4]) for row in duckdb.sql(sql).fetchall()] == [
        (snapshot, *campaign)
        for snapshot in ("2026-11-23T06-00-00Z", "2026-11-24T06-00-00Z")
        for campaign in (autumn, other)
    ]
    tables = re.findall(r"^\| (?:campaigns|runs) \| (.*) \|$", LAKE, re.MULTILINE)
    told = [re.findall(r"`(\w+)`", table) for table in tables]
    assert told == [list(CAMPAIGN_COLUMNS), list(RUN_COLUMNS)]
