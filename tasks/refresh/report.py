"""What a refresh did, for people: a markdown artifact, and the same as a small result."""

from base64 import b64encode
from collections.abc import Callable
from datetime import datetime

from prefect import task
from prefect.artifacts import create_markdown_artifact
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from rich.filesize import decimal

from blocks import DataLake, NudgescribeAccount
from nudgescribe.fields import REASONS
from tasks.customers.sync import ListDiff
from tasks.customers.upload import GroupRef
from tasks.customers.validate import BrokenRule, Validated
from tasks.export.run_diff import RunDiffSummary
from tasks.policies import NEVER_CACHED, READ
from tasks.ui.artifacts import artifact_key
from tasks.ui.charts import lines
from tasks.ui.markdown import change, percent, plain, two_columns, with_share

MOST_SHOWN = 20
"""Rules that rejected most rows."""


class RefreshResult(BaseModel):
    """Count what one refresh did: its segments against those of the `previous_run`, its messages
    against an earlier run of the lake; `seconds` per step, `path` the run's folder in the lake.

    What was added later has a default, what was renamed an alias: results of earlier releases lie
    in lakes.
    """

    model_config = ConfigDict(frozen=True)

    campaign_id: str
    campaign: str
    run_number: int
    customer_group_id: str
    group: str
    extracted: int
    accepted: int
    rejected: int = Field(validation_alias=AliasChoices("rejected", "quarantined"))
    broken_rules: list[BrokenRule] = Field(
        default=[], validation_alias=AliasChoices("broken_rules", "refused")
    )
    quarantine: str | None
    previous_run: int | None = None
    matched: int
    new: int
    orphaned: int
    customers_in_new: int
    published_at: datetime | None = None
    run_diff: RunDiffSummary = Field(
        default=RunDiffSummary(), validation_alias=AliasChoices("run_diff", "difference")
    )
    files: int
    rows: int
    bytes: int
    path: str
    seconds: dict[str, float]


@task(**READ)
def report_refresh(account: NudgescribeAccount, lake: DataLake, result: RefreshResult) -> None:
    """The refresh as a page in the UI, for whoever looks after the campaign."""
    link = account.link_to(result.campaign_id)
    create_markdown_artifact(
        _page(result, link, lake.files.url),
        key=artifact_key("refresh", result.campaign_id),
        description=f"{result.campaign}, run {result.run_number}",
    )


@task(**NEVER_CACHED)
def report_sync(group: GroupRef, validated: Validated, changes: ListDiff) -> None:
    """The synchronisation as a page in the UI."""
    listed = f" (listed in `{validated.quarantine}`)" if validated.quarantine else ""
    table = two_columns(
        "customers",
        {
            "extracted from the CRM": f"{validated.extracted:,}",
            f"rejected{listed}": f"{validated.rejected:,}",
            "added": f"{changes.added:,}",
            "changed": f"{changes.changed:,}",
            "deleted, no longer in the list": f"{changes.removed:,}",
            "unchanged": f"{changes.unchanged:,}",
        },
    )
    create_markdown_artifact(
        f"# Customer group *{plain(group.name)}*\n\n{table}\n",
        key=artifact_key("sync", group.customer_group_id),
        description=f"{group.name}: {validated.accepted.rows:,} customers",
    )


def _page(result: RefreshResult, link: str | None, place: Callable[[str], str]) -> str:
    """Paragraphs are one line each: the UI would break them where this file does."""
    run, when = f"Run {result.run_number}", result.published_at
    published = f"{run} was published on {when:%Y-%m-%d at %H:%M} UTC" if when else run
    picture = b64encode(lines(_numbers(result))).decode()
    parts = [
        f"# {plain(result.campaign)}: run {result.run_number}",
        f"{published}: {result.rows:,} messages, one for each customer of the list.",
        f"[Open the campaign]({link})" if link else "",
        "## What came in",
        two_columns(
            "rows",
            {
                "from the CRM": f"{result.extracted:,}",
                f"accepted, uploaded as group *{plain(result.group)}*": f"{result.accepted:,}",
                "rejected": with_share(result.rejected, result.extracted),
            },
        ),
        *_rejected(result, place),
        "## What changed in segments",
        two_columns(
            "segments",
            {
                "matched, messages kept": f"{result.matched:,}",
                "new, messages written and reviewed": f"{result.new:,}",
                "removed, no customers left": f"{result.orphaned:,}",
            },
        ),
        f"Customers in new segments: {with_share(result.customers_in_new, result.accepted)}.",
        "## Compared with the last run",
        *_compared(result),
        f"![The numbers above](data:image/png;base64,{picture})",
        "## Technical details",
        two_columns(
            "seconds", {step: f"{seconds:.1f}" for step, seconds in result.seconds.items()}
        ),
        f"Files in the lake: {result.files:,}, together {decimal(result.bytes)}, in "
        f"`{place(result.path)}`",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _rejected(result: RefreshResult, place: Callable[[str], str]) -> list[str]:
    if not result.quarantine:
        return []
    most = sorted(result.broken_rules, key=lambda one: one.rows, reverse=True)
    shown = [
        f"| {plain(one.field)} | {REASONS.get(one.code, plain(one.code))} | {one.rows:,} |"
        for one in most[:MOST_SHOWN]
    ]
    more = sum(one.rows for one in most[MOST_SHOWN:])
    if more:
        shown.append(f"| other fields | | {more:,} |")
    several = sum(one.rows for one in most) > result.rejected
    return [
        "## What was rejected and why",
        "\n".join(["| field | what is wrong | rows |", "|---|---|---:|", *shown]),
        "A row with several faults is counted with each of them." if several else "",
        f"Fix these rows in the CRM; they are listed in `{place(result.quarantine)}`",
    ]


def _compared(result: RefreshResult) -> list[str]:
    found, run = result.run_diff, result.run_number
    if found.problem:
        return [f"The messages could not be compared with earlier ones: {plain(found.problem)}"]
    if found.since is None:
        return ["There is none: no earlier run of this campaign is in the lake."]
    before, after = found.in_both + found.removed, found.in_both + found.added
    rows = [f"| customers | {before:,} | {after:,} | {change(before, after)} |"]
    if found.since == result.previous_run:
        was, are = result.matched + result.orphaned, result.matched + result.new
        rows.append(f"| segments | {was:,} | {are:,} | {change(was, are)} |")
    return [
        "\n".join([f"| | run {found.since} | run {run} | |", "|---|---:|---:|---:|", *rows]),
        f"Of the {found.in_both:,} customers in both runs, {found.changed:,} received a different "
        f"message: **{percent(found.changed, found.in_both)}**. {found.added:,} customers were "
        f"added, {found.removed:,} removed.",
    ]


def _numbers(result: RefreshResult) -> dict[str, dict[str, int]]:
    found = result.run_diff
    drawn = {"rows": {"accepted": result.accepted, "rejected": result.rejected}}
    if found.compared:
        drawn["messages"] = {
            "unchanged": found.unchanged,
            "changed": found.changed,
            "added": found.added,
        }
    drawn["segments"] = {
        "matched": result.matched,
        "new": result.new,
        "removed": result.orphaned,
    }
    return drawn
