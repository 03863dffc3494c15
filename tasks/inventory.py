"""The inventory of an account: a snapshot of its campaigns and their runs in the lake."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any

import polars as pl
from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.assets import materialize
from prefect.logging import get_run_logger
from pydantic import Field

from blocks import DataLake, NudgescribeAccount
from blocks.iterators import batched
from blocks.storage.errors import LakeError
from blocks.storage.history import read_newest_run
from blocks.storage.manifest import CAMPAIGNS, RUNS
from blocks.storage.parquet import write_parquet
from blocks.storage.snapshots import (
    CAMPAIGN_COLUMNS,
    RUN_COLUMNS,
    Snapshot,
    build_frame,
    list_snapshots,
    read_campaigns,
    read_snapshot,
    snapshot_file,
    snapshot_name,
)
from nudgescribe import errors
from nudgescribe.bases import Frozen
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import ComparisonSummary, Status
from nudgescribe.errors import ContractMismatch, NotFound, Retryable, counted, first_ten
from nudgescribe.telemetry import within_span
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED
from tasks.ui import assets
from tasks.ui.artifacts import artifact_key, link_report, link_to_flow_run, show_page
from tasks.ui.charts import vertical_bars
from tasks.ui.markdown import MOST_CAMPAIGNS_SHOWN, code_block, link, plain, shorten, two_columns

READERS = 8
HISTORIES_AT_ONCE = 250
MOST_UNEXPECTED = 20
MOST_OF_NAME = 30
"""Characters in the table of campaigns: its first five columns fit a window of 1280 pixels."""
SNAPSHOTS = 10
"""Of other workspaces, or of all: among the last so many, each campaign is looked for."""


class StatusChange(Frozen):
    """A campaign whose status is another one than in the snapshot `since`."""

    campaign_id: str
    campaign: str
    workspace_id: str
    before: str
    after: str
    since: str

    @property
    def occurrence(self) -> str:
        """Return what tells it from other changes of the campaign."""
        return f"{self.since} {self.before} {self.after}"


class Inventory(Frozen):
    """A snapshot by its name, its numbers of campaigns and runs, the number of campaigns of each
    status, and its files. `unexpected` lists the campaigns and runs that do not fit the contract,
    which the snapshot lacks, and those in unknown states; `changes` the campaigns that an earlier
    snapshot has with another status.
    """

    snapshot: str
    campaigns: int
    runs: int
    statuses: dict[str, int]
    campaigns_path: str
    runs_path: str
    unexpected: list[str] = Field(default=[])
    changes: list[StatusChange] = Field(default=[])


class CampaignDeleted(Retryable):
    """A campaign that was listed has no history."""

    advice = "It was deleted while the inventory was taken: take it again."


@materialize("lake://campaigns", **RETRIED, task_run_name="take inventory of {account.block_name}")
def take_inventory(
    account: NudgescribeAccount, lake: DataLake, workspaces: list[str], run: Refresh
) -> Inventory:
    """Write the snapshot, unless an earlier try of this flow run has written it.

    Raises NotFound if the account lacks one of the workspaces, CampaignDeleted.
    """
    files, unexpected = lake.files, list[str]()
    name, writer = snapshot_name(run.started), run.short
    campaigns_file = snapshot_file(CAMPAIGNS, name, writer)
    runs_file = snapshot_file(RUNS, name, writer)
    if not files.exists(campaigns_file):
        with account.get_client() as client:
            campaigns = _campaigns(client, account, set(workspaces), unexpected)
            ids = campaigns["campaign_id"].to_list()
            with files.new_file(runs_file) as file:
                write_parquet(file, RUN_COLUMNS, _runs(client, ids, unexpected))
        with files.new_file(campaigns_file) as file:
            write_parquet(file, CAMPAIGN_COLUMNS, [campaigns])
    snapshot = read_snapshot(files, name, writer)
    unexpected += _unknown_states(snapshot)
    if unexpected:
        get_run_logger().warning(
            "%s unexpected campaigns or runs: %s", len(unexpected), first_ten(unexpected, " ")
        )
    inventory = Inventory(
        snapshot=name,
        campaigns=snapshot.campaigns.height,
        runs=snapshot.runs.height,
        statuses=_statuses(snapshot.campaigns),
        campaigns_path=files.url(campaigns_file),
        runs_path=files.url(runs_file),
        unexpected=sorted(unexpected),
        changes=_changes(lake, name, snapshot.campaigns),
    )
    facts = inventory.model_dump(exclude={"changes"})
    assets.describe(assets.inventory(lake, account), facts)
    return inventory


@task(**RETRIED, task_run_name="report inventory of {account.block_name}")
def report_inventory(
    account: NudgescribeAccount, lake: DataLake, inventory: Inventory, run: Refresh
) -> None:
    """Report the snapshot in Prefect's UI: a page with a chart, and the campaigns as a table."""
    files = lake.files
    snapshot = read_snapshot(files, inventory.snapshot, run.short)
    key = artifact_key("inventory", account.block_name)
    title = f"Campaigns of {plain(account.block_name)} on {run.started:%Y-%m-%d at %H:%M} UTC"
    summary = f"{title}: {inventory.campaigns:,}"
    report = show_page(_page(title, inventory), key=key, description=summary)
    if inventory.campaigns > MOST_CAMPAIGNS_SHOWN:
        all_in = f"All are in {plain(inventory.campaigns_path)}"
        summary += f", the {MOST_CAMPAIGNS_SHOWN} longest without a run. {all_in}"
    shown = _with_last_run(snapshot).head(MOST_CAMPAIGNS_SHOWN).to_dicts()
    made_by = _flow_runs(lake, [campaign["campaign_id"] for campaign in shown])
    rows = [_row(campaign, account, made_by) for campaign in shown]
    create_table_artifact(rows, key=f"{key}-campaigns", description=summary)
    link_report(report, f"{counted(inventory.campaigns, 'campaign', 'is')} in the inventory.")


def _campaigns(
    client: NudgescribeClient, account: NudgescribeAccount, wanted: set[str], unexpected: list[str]
) -> pl.DataFrame:
    taken_at = datetime.now(UTC)
    workspaces = client.campaigns()
    left_out = [
        record for one in workspaces if one.workspace_id in wanted for record in one.malformed
    ]
    for record in left_out if wanted else workspaces.malformed:
        unexpected.append(errors.malformed(f"Record {record.id}".rstrip(), record).problem)
    if unknown := wanted - {workspace.workspace_id for workspace in workspaces}:
        workspaces.check(f"A workspace of {first_ten(sorted(unknown))}", unknown)
        raise NotFound(
            f"Account {account.block_name} has no workspace {first_ten(sorted(unknown))}."
        )
    rows = (
        {
            **dict(campaign),
            "workspace_id": workspace.workspace_id,
            "workspace_name": workspace.name,
            "taken_at": taken_at,
        }
        for workspace in workspaces
        if not wanted or workspace.workspace_id in wanted
        for campaign in workspace.campaigns
    )
    return build_frame(rows, CAMPAIGN_COLUMNS)


def _runs(
    client: NudgescribeClient, campaign_ids: list[str], unexpected: list[str]
) -> Iterator[pl.DataFrame]:
    """Yield all runs of the campaigns, a group of campaigns at a time."""
    with ThreadPoolExecutor(READERS) as pool:
        for ids in batched(campaign_ids, HISTORIES_AT_ONCE):
            histories = pool.map(within_span(partial(_history, client, unexpected)), ids)
            yield build_frame((run for history in histories for run in history), RUN_COLUMNS)


def _history(
    client: NudgescribeClient, unexpected: list[str], campaign_id: str
) -> list[dict[str, Any]]:
    try:
        history = client.rerun_history(campaign_id)
    except NotFound:
        raise CampaignDeleted(f"Campaign {campaign_id} is listed, but has no history.") from None
    except ContractMismatch as error:
        unexpected.append(f"Campaign {campaign_id}: {error.problem}")
        return []
    return [
        {**dict(run), "campaign_id": campaign_id, **_sizes(run.comparison_summary)}
        for run in history
    ]


def _sizes(summary: ComparisonSummary | None) -> dict[str, int | None]:
    return {name: getattr(summary, name, None) for name in ComparisonSummary.model_fields}


def _changes(lake: DataLake, name: str, campaigns: pl.DataFrame) -> list[StatusChange]:
    """Compare each campaign with the newest of the last snapshots that has it."""
    before: dict[str, tuple[str, str]] = {}
    wanted = set(campaigns["campaign_id"])
    for earlier in [each for each in list_snapshots(lake.files) if each < name][:SNAPSHOTS]:
        if before.keys() >= wanted:
            break
        try:
            then = read_campaigns(lake.files, earlier)
        except LakeError as error:
            get_run_logger().warning(
                "Statuses are not compared with snapshot %s: %s", earlier, error
            )
            continue
        for campaign_id, status in then["campaign_id", "status"].rows():
            before.setdefault(campaign_id, (earlier, status))
    columns = ["campaign_id", "name", "workspace_id", "status"]
    return [
        StatusChange(
            campaign_id=campaign_id,
            campaign=campaign,
            workspace_id=workspace_id,
            before=before[campaign_id][1],
            after=status,
            since=before[campaign_id][0],
        )
        for campaign_id, campaign, workspace_id, status in campaigns[columns].rows()
        if campaign_id in before and before[campaign_id][1] != status
    ]


def _flow_runs(lake: DataLake, campaign_ids: list[str]) -> dict[tuple[str, int], str]:
    """Return the flow runs of the campaigns' newest refreshes, by campaign and run number."""
    logger = get_run_logger()  # threads of our own have no flow run

    def newest(campaign_id: str) -> list[tuple[str, int, str]]:
        try:
            row = read_newest_run(lake.files, campaign_id)
        except LakeError as error:
            logger.warning("A campaign is shown without its flow run: %s", error)
            return []
        return row["campaign_id", "run_number", "flow_run_id"].rows()

    with ThreadPoolExecutor(READERS) as pool:
        rows = [row for each in pool.map(newest, campaign_ids) for row in each]
    return {(campaign_id, number): flow_run for campaign_id, number, flow_run in rows}


def _unknown_states(snapshot: Snapshot) -> Iterator[str]:
    """Yield the campaigns and their newest runs whose states are none of `Status`."""
    unknown = ~pl.col("status").is_in([*Status])
    for campaign_id, status in snapshot.campaigns.filter(unknown)["campaign_id", "status"].rows():
        yield f"Campaign {campaign_id} is in state '{status}', which is unknown."
    last = snapshot.runs.sort("run_number").group_by("campaign_id", maintain_order=True).last()
    columns = ["campaign_id", "run_number", "status"]
    for campaign_id, number, status in last.filter(unknown)[columns].rows():
        yield f"Run {number} of campaign {campaign_id} is in state '{status}', which is unknown."


def _statuses(campaigns: pl.DataFrame) -> dict[str, int]:
    """Count the campaigns of each status, in the order in which a campaign goes through them."""
    counts = dict(campaigns.group_by("status").len().rows())
    order = dict.fromkeys([*Status, *sorted(counts)])
    return {str(status): counts[status] for status in order if status in counts}


def _with_last_run(snapshot: Snapshot) -> pl.DataFrame:
    """Return the campaigns with their last run, the ones longest without a run first."""
    last = snapshot.runs.sort("run_number").group_by("campaign_id").last()
    ended = last.select(
        "campaign_id",
        pl.col("run_number", "status").name.prefix("last_"),
        pl.coalesce("completed_at", "started_at").alias("last_at"),
    )
    campaigns = snapshot.campaigns.join(ended, on="campaign_id", how="left")
    days = (pl.col("taken_at") - pl.col("last_at")).dt.total_days()
    return campaigns.with_columns(days.alias("days")).sort("last_at", "name", nulls_last=True)


def _row(
    campaign: dict[str, Any], account: NudgescribeAccount, made_by: dict[tuple[str, int], str]
) -> dict[str, Any]:
    name, url = campaign["name"], account.link_to(campaign["campaign_id"])
    at, number = campaign["last_at"], campaign["last_run_number"]
    flow_run = made_by.get((campaign["campaign_id"], number))
    return {
        # Within a link, Prefect's UI would show what makes the name plain.
        "campaign": shorten(name, MOST_OF_NAME),
        "status": plain(campaign["status"]),
        "last run": link_to_flow_run(str(number), flow_run) if flow_run else number,
        "its status": campaign["last_status"] and plain(campaign["last_status"]),
        "days since": campaign["days"],
        "at": at and f"{at:%Y-%m-%d}",
        "current run": campaign["current_run"],
        "workspace": shorten(campaign["workspace_name"] or "", MOST_OF_NAME),
        "page": link("open", url) if url else "",
    }


def _page(title: str, inventory: Inventory) -> str:
    bars = {status.replace(" ", "\n"): n for status, n in inventory.statuses.items()}
    known = {
        name: bars.pop(name) for status in Status if (name := status.replace(" ", "\n")) in bars
    }
    chart = vertical_bars({"campaigns": known | ({"other": sum(bars.values())} if bars else {})})
    numbers = {
        "campaigns": inventory.campaigns,
        **{plain(status): number for status, number in inventory.statuses.items()},
        "runs": inventory.runs,
    }
    table = two_columns("", {name: f"{number:,}" for name, number in numbers.items()})
    listed = "".join(f"- {plain(each)}\n" for each in inventory.unexpected[:MOST_UNEXPECTED])
    more = len(inventory.unexpected) - MOST_UNEXPECTED
    rest = f"- and {more:,} more\n" if more > 0 else ""
    section = f"## Not as expected\n\n{listed}{rest}\n" if listed else ""
    changed = _changed(inventory.changes)
    paths = code_block(f"{inventory.campaigns_path}\n{inventory.runs_path}")
    return f"""# {title}

{table}

{chart.show("Campaigns by status")}

{changed}{section}Saved to

{paths}
"""


def _changed(changes: list[StatusChange]) -> str:
    """Return a section of the page with the changed statuses, empty if there are none."""
    if not changes:
        return ""
    lines = [
        f"- {plain(one.campaign)}: {plain(one.before)}, now {plain(one.after)}\n"
        for one in changes[:MOST_UNEXPECTED]
    ]
    if more := len(changes) - len(lines):
        lines.append(f"- and {more:,} more\n")
    return f"## Changed since the last snapshot\n\n{''.join(lines)}\n"
