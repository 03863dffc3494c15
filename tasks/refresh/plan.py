"""The plan of a refresh: what it would do, computed without changing anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.assets import materialize
from pydantic import ValidationError

from blocks import DataLake, NudgescribeAccount
from blocks.storage.files import NotInLake
from nudgescribe import segments
from nudgescribe.bases import Frozen
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Segment
from nudgescribe.errors import NudgeflowError, counted
from nudgescribe.lazy import pl
from nudgescribe.segments import SegmentDiff
from tasks.campaigns import CampaignRef
from tasks.customers.guardrails import Guardrails
from tasks.customers.holdout import describe_other_key
from tasks.customers.staging import local_copy
from tasks.customers.sync import ListDiff, diff_lists, held_customers
from tasks.customers.validate import Validated
from tasks.journal.entries import Journal, Step
from tasks.journal.history import Counted
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED
from tasks.refresh.preview import customers_before, segment_sizes, segments_before, variables_of
from tasks.ui.artifacts import artifact_key, link_report, show_page
from tasks.ui.charts import Chart, vertical_bars
from tasks.ui.markdown import code_block, plain, two_columns

PLANS = "plans"
MATCHED, NEW, ORPHANED = "matched", "new", "orphaned"


class Share(Frozen):
    """A number of segments, and of the customers in them."""

    segments: int
    customers: int


class Plan(Frozen):
    """What a refresh would do.

    `changes` compares the list with the customers of the current run, and is None if their group is
    deleted; orphaned segments count their customers there. `messages` is the number of messages to
    generate, `quota` of those to generate and to publish. `stops` lists the guardrails that would
    stop the refresh.
    """

    plan_id: str
    made_at: datetime
    campaign_id: str
    campaign: str
    current_run: int
    fingerprint: str
    extracted: int
    accepted: int
    rejected: int
    suppressed: int = 0
    held_out: int = 0
    other_holdout: int | None = None
    quarantine: str | None
    changes: ListDiff | None
    matched: Share
    new: Share
    orphaned: Share
    messages: int
    quota: int
    stops: list[str]


class PlanNotFound(NudgeflowError):
    """The lake has no plan of this id."""

    advice = "Make one with the flow plan-refresh, or leave options.plan_id out."


class PlanDamaged(NudgeflowError):
    advice = "Nothing was changed at Nudgescribe. Make a new plan."


class PlanOutdated(NudgeflowError):
    """List or campaign have changed since the plan was made."""

    advice = "Nothing was changed at Nudgescribe. Make a new plan."


@materialize("lake://plans", **RETRIED)
def make_plan(
    account: NudgescribeAccount,
    campaign: CampaignRef,
    validated: Validated,
    lake: DataLake,
    refresh: Refresh,
    guardrails: Guardrails,
) -> Plan:
    """Compare the list with the campaign's current run, and save the plan to the lake: as JSON, as
    a chart, and its segments as Parquet. Raises ListRefused, AuthError.
    """
    with account.get_client() as client, local_copy(lake, validated.accepted) as listed:
        comparison = _compare(client, campaign, listed, validated.key)
    plan = _plan(campaign, validated, refresh, guardrails, comparison)
    customers = plan.changes.model_dump() if plan.changes else {"in the list": plan.accepted}
    chart = vertical_bars({"customers": customers, "segments": comparison.segments_by_state()})
    path = path_of(campaign, plan.plan_id)
    with lake.files.new_file(f"{path}-segments.parquet") as file:
        comparison.segments.write_parquet(file)
    if chart.png:
        lake.files.write(f"{path}.png", chart.png)
    lake.files.write(f"{path}.json", plan.model_dump_json(indent=2).encode())
    counts = plan.changes.model_dump() if plan.changes else {}
    counts |= {state: getattr(plan, state).segments for state in (MATCHED, NEW, ORPHANED)}
    Journal(lake.files, refresh.journal).create(Step.COUNTED, Counted(counts=counts))
    _report(plan, chart, lake.files.url(f"{path}.json"))
    return plan


@task(**RETRIED)
def check_plan(lake: DataLake, plan_id: str, campaign: CampaignRef, validated: Validated) -> None:
    """Check that list and campaign are still those of the plan.

    Raises PlanNotFound, PlanDamaged, PlanOutdated.
    """
    try:
        plan = Plan.model_validate_json(lake.files.read(f"{path_of(campaign, plan_id)}.json"))
    except NotInLake:
        raise PlanNotFound(
            f"The lake has no plan {plan_id} of campaign {campaign.campaign_id}."
        ) from None
    except ValidationError:
        raise PlanDamaged(f"Plan {plan_id} in the lake is empty, cut off or no plan.") from None
    if plan.current_run != campaign.previous_run:
        raise PlanOutdated(
            f"Plan {plan_id} was made on run {plan.current_run} of the campaign, which is on run "
            f"{campaign.previous_run} now."
        )
    if plan.fingerprint != validated.fingerprint:
        raise PlanOutdated(
            f"Plan {plan_id} was made for another list: {plan.accepted:,} accepted rows then, "
            f"{validated.accepted.rows:,} now, or other values in them."
        )


def path_of(campaign: CampaignRef, plan_id: str) -> str:
    """Return the path of a plan's files in the lake, without their extensions."""
    return f"{PLANS}/{campaign.partition}/{quote(plan_id, safe='')}"


@dataclass(frozen=True)
class _RunComparison:
    """A list compared with the current run: `segments` has a row for each, with its state and its
    customers in the list and before. Without that run's group `before` and `changes` are None.
    """

    segments: pl.DataFrame
    before: int | None
    changes: ListDiff | None

    def segments_by_state(self) -> dict[str, int]:
        return dict(self.segments.group_by("state", maintain_order=True).len().rows())

    def share(self, state: str, customers: str) -> Share:
        rows = self.segments.filter(pl.col("state") == state)
        return Share(segments=rows.height, customers=int(rows[customers].sum()))


def _compare(
    client: NudgescribeClient, campaign: CampaignRef, listed: Path, key: str
) -> _RunComparison:
    earlier = segments_before(client, campaign)
    variables = variables_of(earlier)
    sizes = segment_sizes(listed, variables)
    diff = segments.compare(earlier, (segment for segment, _ in sizes))
    before = customers_before(client, campaign)
    changes, sizes_before = None, dict[str, int]()
    if before is not None:
        assert campaign.previous_group is not None
        group = campaign.workspace_id, campaign.previous_group
        with held_customers(client, *group, listed) as held:
            changes = diff_lists(listed, held, key)
            sizes_before = _by_key(segments.count(pl.scan_parquet(held), variables))
    return _RunComparison(_segment_table(diff, _by_key(sizes), sizes_before), before, changes)


def _by_key(sizes: list[tuple[Segment, int]]) -> dict[str, int]:
    return {segments.key(segment): size for segment, size in sizes}


def _segment_table(
    diff: SegmentDiff, sizes: Mapping[str, int], sizes_before: Mapping[str, int]
) -> pl.DataFrame:
    """Return every segment with its state and its customers in the list and before."""
    states = dict.fromkeys(sizes, MATCHED)
    for state, changed in ((NEW, diff.new), (ORPHANED, diff.orphaned)):
        states |= {segments.key(segment): state for segment in changed}
    return pl.DataFrame(
        {
            "segment": list(states),
            "state": list(states.values()),
            "customers": [sizes.get(key, 0) for key in states],
            "before": [sizes_before.get(key, 0) for key in states],
        },
        schema={"segment": pl.String, "state": pl.String, "customers": int, "before": int},
    )


def _plan(
    campaign: CampaignRef,
    validated: Validated,
    refresh: Refresh,
    guardrails: Guardrails,
    comparison: _RunComparison,
) -> Plan:
    new, orphaned = comparison.share(NEW, "customers"), comparison.share(ORPHANED, "before")
    counts = validated.counts(comparison.before, new.segments, orphaned.segments)
    return Plan(
        plan_id=refresh.id,
        made_at=datetime.now(UTC),
        campaign_id=campaign.campaign_id,
        campaign=campaign.name,
        current_run=campaign.previous_run,
        fingerprint=validated.fingerprint,
        extracted=validated.extracted,
        accepted=validated.accepted.rows,
        rejected=validated.rejected,
        suppressed=validated.suppressed,
        held_out=validated.held_out,
        other_holdout=validated.other_holdout,
        quarantine=validated.quarantine,
        changes=comparison.changes,
        matched=comparison.share(MATCHED, "customers"),
        new=new,
        orphaned=orphaned,
        messages=new.segments,
        quota=new.segments + validated.accepted.rows,
        stops=[hit.problem for hit in guardrails.hits(counts)],
    )


def _report(plan: Plan, chart: Chart, url: str) -> None:
    rows = _rows(plan)
    stops = "\n".join(f"- {plain(stop)}" for stop in plan.stops) or "No guardrail would stop it."
    page = f"""# Plan for {plain(plan.campaign)}, after run {plan.current_run}

{two_columns("", {name: f"{number:,}" for name, number in rows.items()})}

{describe_other_key(plan.other_holdout)}

{chart.show("Customers and segments")}

## Guardrails

{stops}

To refresh by this plan, set `options.plan_id` to `{plan.plan_id}`. It is saved to

{code_block(url)}
"""
    key = artifact_key("plan", plan.campaign, plan.campaign_id)
    description = f"Plan for {plain(plan.campaign)}"
    address = show_page(page, key, description)
    numbers = [{"what": name, "number": number} for name, number in rows.items()]
    create_table_artifact(numbers, key=f"{key}-numbers", description=description)
    link_report(address, *sentences(plan))


def sentences(plan: Plan) -> list[str]:
    """Return the plan in plain sentences, for logs and terminals."""
    written = [
        f"A refresh would upload {plan.accepted:,} of {counted(plan.extracted, 'row')}, and write "
        f"{counted(plan.new.segments, 'new message')}; "
        f"{counted(plan.orphaned.segments, 'segment')} would be removed."
    ]
    if changes := plan.changes:
        written.append(
            f"Since run {plan.current_run}, "
            f"{counted(changes.added, 'customer', 'was')} added, {changes.changed:,} changed, "
            f"{changes.removed:,} removed."
        )
    stopped = "Its guardrails would stop it." if plan.stops else "No guardrail would stop it."
    return [*written, stopped]


def _rows(plan: Plan) -> dict[str, int]:
    changes = plan.changes.model_dump() if plan.changes else {}
    return {
        "rows extracted": plan.extracted,
        "rows rejected": plan.rejected,
        **({"customers suppressed": plan.suppressed} if plan.suppressed else {}),
        **({"customers held out": plan.held_out} if plan.held_out else {}),
        **{f"customers {state}": number for state, number in changes.items()},
        "segments matched": plan.matched.segments,
        "customers in matched segments": plan.matched.customers,
        "segments new": plan.new.segments,
        "customers in new segments": plan.new.customers,
        "segments removed": plan.orphaned.segments,
        "customers previously in removed segments": plan.orphaned.customers,
        "messages to generate": plan.messages,
        "messages to generate and publish, of the quota": plan.quota,
    }
