"""The result of a refresh or a synchronisation, and its report as a markdown artifact."""

from collections.abc import Callable
from datetime import datetime

from prefect import task
from pydantic import AliasChoices, Field
from rich.filesize import decimal

from blocks import DataLake, NudgescribeAccount
from nudgescribe.bases import Frozen
from nudgescribe.errors import counted
from nudgescribe.fields import REASONS
from tasks.customers.duplicates import DUPLICATE, Choice
from tasks.customers.holdout import describe_other_key
from tasks.customers.sync import ListDiff
from tasks.customers.upload import GroupRef
from tasks.customers.validate import BrokenRule, Validated
from tasks.export.run_diff import RunDiffSummary
from tasks.policies import NEVER_CACHED, RETRIED
from tasks.refresh.run_shown import RunShown, show_run
from tasks.refresh.trend import Past, last_runs, show_trend
from tasks.ui.artifacts import artifact_key, show_page
from tasks.ui.charts import horizontal_bars
from tasks.ui.markdown import (
    MOST_RULES_SHOWN,
    change,
    code_block,
    link,
    percent,
    plain,
    table,
    two_columns,
    with_share,
)


class RefreshResult(Frozen):
    """The result of one refresh: rows of the list, segments compared with the `previous_run`,
    messages compared with an earlier run in the lake, `seconds` per step with all waits, and the
    `path` of the run's folder in the lake.

    Lakes hold results of earlier releases, so new fields have defaults and renamed ones aliases.
    """

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
    duplicates: Choice = "refuse"
    fingerprint: str = ""
    previous_run: int | None = None
    matched: int
    new: int
    orphaned: int
    customers_in_new: int
    published_at: datetime | None = None
    suppressed: int = 0
    suppressed_since: int = 0
    held_out: int = 0
    other_holdout: int | None = None
    erased: int = 0
    erased_before: int = 0
    run_diff: RunDiffSummary = Field(
        default=RunDiffSummary(), validation_alias=AliasChoices("run_diff", "difference")
    )
    files: int
    rows: int
    bytes: int
    path: str
    seconds: dict[str, float]


@task(**RETRIED)
def report_refresh(
    account: NudgescribeAccount, lake: DataLake, result: RefreshResult, shown: RunShown
) -> str | None:
    """Report the refresh as a page in Prefect's UI, and return its address, if that is known."""
    runs = last_runs(lake, result.campaign_id, _now(result))
    return show_page(
        _page(result, shown, runs, account.link_to(result.campaign_id), lake.files.url),
        key=artifact_key("refresh", result.campaign, result.campaign_id),
        description=f"{plain(result.campaign)}, run {result.run_number}",
    )


@task(**NEVER_CACHED)
def report_sync(
    lake: DataLake, group: GroupRef, validated: Validated, changes: ListDiff
) -> str | None:
    """Report the synchronisation as a page in Prefect's UI, and return its address."""
    counts = two_columns(
        "customers",
        {
            "extracted from the CRM": f"{validated.extracted:,}",
            "rejected": with_share(validated.rejected, validated.extracted),
            **({"suppressed": f"{validated.suppressed:,}"} if validated.suppression else {}),
            "added": f"{changes.added:,}",
            "changed": f"{changes.changed:,}",
            "removed, no longer in the list": f"{changes.removed:,}",
            "unchanged": f"{changes.unchanged:,}",
        },
    )
    parts = [
        f"# Customer group *{plain(group.name)}*",
        counts,
        *_rejected(validated, lake.files.url),
    ]
    return show_page(
        _joined(parts),
        key=artifact_key("sync", group.name, group.customer_group_id),
        description=f"{plain(group.name)}: {counted(validated.accepted.rows, 'customer')}",
    )


def sync_sentence(group: GroupRef, changes: ListDiff) -> str:
    """Return what a synchronisation has come to in a plain sentence."""
    return (
        f"Group '{group.name}': {counted(changes.added, 'customer', 'was')} added, "
        f"{changes.changed:,} changed, {changes.removed:,} removed; "
        f"{counted(changes.unchanged, verb='is')} unchanged."
    )


def sentences(result: RefreshResult) -> list[str]:
    """Return the result in plain sentences, for logs and terminals."""
    diff = result.run_diff
    left_out = result.erased_before + result.suppressed + result.held_out
    written = [
        f"{counted(result.extracted, 'row')} came from the CRM; "
        f"{counted(result.rejected, verb='was')} rejected."
        + (f" {counted(left_out, 'customer', 'was')} left out." if left_out else ""),
        f"Run {result.run_number} has {counted(result.rows, 'message')}. {_new_segments(result)}; "
        f"{counted(result.orphaned, verb='was')} removed.",
    ]
    if diff.compared:
        written.append(
            f"Since run {diff.since}, {diff.changed:,} of {counted(diff.in_both, 'customer')} "
            f"received a different message; {counted(diff.added, verb='was')} added, "
            f"{counted(diff.removed)} removed."
        )
    return written


def _new_segments(result: RefreshResult) -> str:
    segments = result.matched + result.new
    if segments == 1:
        return f"Its only segment is {'new' if result.new else 'not new'}"
    new = counted(result.new) if result.new else "None"
    return f"{new} of its {segments:,} segments {'is' if result.new < 2 else 'are'} new"


def _now(result: RefreshResult) -> Past:
    diff = result.run_diff
    numbers = diff.model_dump(include={"unchanged", "changed", "added", "removed", "since"})
    return Past(
        run_number=result.run_number,
        messages=result.rows,
        new_segments=result.new,
        **(numbers if diff.compared else {}),
    )


def _page(
    result: RefreshResult,
    shown: RunShown,
    runs: list[Past],
    campaign_url: str | None,
    url: Callable[[str], str],
) -> str:
    # Each paragraph is one line, for the UI shows line breaks as they are.
    run, when = f"Run {result.run_number}", result.published_at
    published = f"{run} was published on {when:%Y-%m-%d at %H:%M} UTC" if when else run
    parts = [
        f"# {plain(result.campaign)}: run {result.run_number}",
        f"{published}: {counted(result.rows, 'message')}, one for each customer of the list.",
        link("Open the campaign", campaign_url) if campaign_url else "",
        "## What came in",
        two_columns(
            "rows",
            {
                "from the CRM": f"{result.extracted:,}",
                "accepted and uploaded": f"{result.accepted:,}",
                "rejected": with_share(result.rejected, result.extracted),
                **_left_out(result),
            },
        ),
        f"The customer group is *{plain(result.group)}*.",
        horizontal_bars(_rows(result)).show("Rows"),
        describe_other_key(result.other_holdout),
        *_rejected(result, url),
        "## What changed in segments",
        table("lrr", ("", "segments", "customers"), _segment_rows(result)),
        horizontal_bars(_segments(result)).show("Segments"),
        *show_run(shown, result.accepted),
        "## Compared with the last run",
        *_compared(result),
        horizontal_bars(_messages(result)).show("Messages"),
        *show_trend(runs),
        "## Technical details",
        "From the beginning of the refresh, with all waits:",
        two_columns("seconds", _seconds(result)),
        f"Files in the lake: {result.files:,}, together {decimal(result.bytes)}, in",
        code_block(url(result.path)),
    ]
    return _joined(parts)


def _seconds(result: RefreshResult) -> dict[str, str]:
    steps = {**result.seconds, "together": sum(result.seconds.values())}
    return {plain(step): f"{seconds:,.1f}" for step, seconds in steps.items()}


def _joined(parts: list[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _rejected(result: RefreshResult | Validated, url: Callable[[str], str]) -> list[str]:
    if not result.quarantine:
        return []
    most = sorted(result.broken_rules, key=lambda rule: rule.rows, reverse=True)
    rows = [
        (plain(rule.field), REASONS.get(rule.code, plain(rule.code)), f"{rule.rows:,}")
        for rule in most[:MOST_RULES_SHOWN]
    ]
    if more := sum(rule.rows for rule in most[MOST_RULES_SHOWN:]):
        rows.append(("other fields", "", f"{more:,}"))
    is_overlapping = sum(rule.rows for rule in most) > result.rejected
    return [
        "## What was rejected and why",
        table("llr", ("field", "what is wrong", "rows"), rows),
        "A row that breaks several rules is counted for each of them." if is_overlapping else "",
        f"Of customers who are listed more than once, the {result.duplicates} row was taken, "
        "unless it broke a rule itself."
        if any(rule.code == DUPLICATE for rule in most)
        else "",
        "Fix these rows in the CRM; they are listed in",
        code_block(url(result.quarantine)),
    ]


def _compared(result: RefreshResult) -> list[str]:
    diff = result.run_diff
    if diff.problem:
        return [f"The messages could not be compared with earlier ones: {plain(diff.problem)}"]
    if diff.since is None:
        return ["No earlier run of this campaign is in the lake."]
    rows = [_row("customers", diff.in_both + diff.removed, diff.in_both + diff.added)]
    if diff.since == result.previous_run:
        before, after = result.matched + result.orphaned, result.matched + result.new
        rows.append(_row("segments", before, after))
    return [
        table("lrrr", ("", f"run {diff.since}", f"run {result.run_number}", ""), rows),
        f"Of the {counted(diff.in_both, 'customer')} in both runs, {counted(diff.changed)} "
        f"received a different message: **{percent(diff.changed, diff.in_both)}**. "
        f"{counted(diff.added, 'customer', 'was')} added, {diff.removed:,} removed.",
    ]


def _left_out(result: RefreshResult) -> dict[str, str]:
    """Return a row for each reason for which customers have no message, if there are any."""
    reasons = {
        "erased before, not uploaded": result.erased_before,
        "suppressed, not uploaded": result.suppressed,
        "held out, not uploaded": result.held_out,
        "suppressed since, deleted from the group": result.suppressed_since,
        "removed from the group since, without a message": result.erased,
    }
    return {reason: f"{customers:,}" for reason, customers in reasons.items() if customers}


def _row(name: str, before: int, after: int) -> tuple[str, str, str, str]:
    return name, f"{before:,}", f"{after:,}", change(before, after)


def _rows(result: RefreshResult) -> dict[str, int]:
    left_out = {
        "suppressed": result.suppressed + result.suppressed_since,
        "held out": result.held_out,
    }
    return {
        "accepted": result.accepted,
        "rejected": result.rejected,
        **{name: customers for name, customers in left_out.items() if customers},
    }


def _segment_rows(result: RefreshResult) -> list[tuple[str, str, str]]:
    matched = result.accepted - result.customers_in_new
    return [
        ("matched, messages copied", f"{result.matched:,}", with_share(matched, result.accepted)),
        (
            "new, messages written and reviewed",
            f"{result.new:,}",
            with_share(result.customers_in_new, result.accepted),
        ),
        ("removed, no customers left", f"{result.orphaned:,}", ""),
    ]


def _segments(result: RefreshResult) -> dict[str, int]:
    return {"matched": result.matched, "new": result.new, "removed": result.orphaned}


def _messages(result: RefreshResult) -> dict[str, int]:
    diff = result.run_diff
    return {"unchanged": diff.unchanged, "changed": diff.changed, "added": diff.added}
