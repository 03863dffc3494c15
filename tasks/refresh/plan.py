"""What a refresh would do, worked out without changing anything."""

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

import polars as pl
from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.assets import materialize
from pydantic import BaseModel, ConfigDict

from blocks import DataLake, NudgescribeAccount
from blocks.storage.files import NotInLake
from blocks.storage.scratch import scratch_folder
from nudgescribe import segments
from nudgescribe.contract import Segment
from nudgescribe.errors import NudgeflowError
from nudgescribe.segments import SegmentDiff
from tasks.campaigns import CampaignRef, Refresh
from tasks.customers.guardrails import Guardrails
from tasks.customers.staging import local_copy
from tasks.customers.sync import ListDiff, diff_lists, held_customers
from tasks.customers.validate import Validated
from tasks.policies import READ
from tasks.refresh.preview import customers_before, segments_before, sizes_of, variables_of
from tasks.ui.artifacts import artifact_key
from tasks.ui.charts import bars

PLANS = "plans"
MATCHED, NEW, ORPHANED = "matched", "new", "orphaned"


class Share(BaseModel):
    """Some segments and the customers in them."""

    model_config = ConfigDict(frozen=True)

    segments: int
    customers: int


class Plan(BaseModel):
    """What a refresh would do. `changes` are those against the customers of the current run, None
    if that group is gone; orphaned segments count their customers there. `messages` are to be
    generated, `quota` to be published. `stops` says which guardrails would stop it.
    """

    model_config = ConfigDict(frozen=True)

    plan_id: str
    made_at: datetime
    campaign_id: str
    campaign: str
    current_run: int
    fingerprint: str
    extracted: int
    accepted: int
    rejected: int
    quarantine: str | None
    changes: ListDiff | None
    matched: Share
    new: Share
    orphaned: Share
    messages: int
    quota: int
    stops: list[str]


class PlanNotFound(NudgeflowError):
    advice = "Make one with the flow plan-refresh, or leave options.plan_id out."


class PlanOutdated(NudgeflowError):
    advice = "Nothing was changed at Nudgescribe. Make a new plan."


@materialize("lake://plans", **READ)
def make_plan(
    account: NudgescribeAccount,
    campaign: CampaignRef,
    validated: Validated,
    lake: DataLake,
    refresh: Refresh,
    guardrails: Guardrails,
) -> Plan:
    """Compares the list with the campaign's current run, and leaves the plan in the lake: as JSON,
    as a chart, and with each segment in Parquet. Raises ListRefused, AuthError.
    """
    with (
        account.get_client() as client,
        local_copy(lake, validated.accepted) as listed,
        scratch_folder("what the service holds") as folder,
    ):
        earlier = segments_before(client, campaign)
        variables = variables_of(earlier)
        sizes = sizes_of(listed, variables)
        compared = segments.compare(earlier, (segment for segment, _ in sizes))
        before = customers_before(client, campaign)
        changes, sizes_before = None, dict[str, int]()
        if before is not None:
            assert campaign.previous_group is not None
            held = folder / "held.parquet"
            held_customers(client, campaign.workspace_id, campaign.previous_group, listed, held)
            changes = diff_lists(listed, held, validated.key)
            sizes_before = _by_key(segments.count(pl.scan_parquet(held), variables))
        each = _each(compared, _by_key(sizes), sizes_before)
        plan = _plan(campaign, validated, refresh, guardrails, changes, before, each)
        where = path_of(campaign, plan.plan_id)
        with lake.files.new_file(f"{where}-segments.parquet") as file:
            each.write_parquet(file)
        picture = bars(
            {
                "customers": changes.model_dump() if changes else {"in the list": plan.accepted},
                "segments": dict(each.group_by("state", maintain_order=True).len().rows()),
            }
        )
        lake.files.write(f"{where}.png", picture)
        lake.files.write(f"{where}.json", plan.model_dump_json(indent=2).encode())
    _show(plan, picture, lake.files.url(f"{where}.json"))
    return plan


@task(**READ)
def check_plan(lake: DataLake, plan_id: str, campaign: CampaignRef, validated: Validated) -> None:
    """Makes sure that list and campaign are those the plan was made for.

    Raises PlanNotFound, PlanOutdated.
    """
    try:
        content = lake.files.read(f"{path_of(campaign, plan_id)}.json")
    except NotInLake:
        raise PlanNotFound(
            f"The lake has no plan {plan_id} of campaign {campaign.campaign_id}."
        ) from None
    plan = Plan.model_validate_json(content)
    if plan.current_run != campaign.previous_run:
        raise PlanOutdated(
            f"Plan {plan_id} was made on run {plan.current_run} of the campaign, which is on run "
            f"{campaign.previous_run} now."
        )
    if plan.fingerprint != validated.fingerprint:
        raise PlanOutdated(
            f"Plan {plan_id} was made for another list: {plan.accepted:,} good rows then, "
            f"{validated.accepted.rows:,} now, or other values in them."
        )


def path_of(campaign: CampaignRef, plan_id: str) -> str:
    """Where a plan's files lie, without their endings."""
    return f"{PLANS}/{campaign.place}/{quote(plan_id, safe='')}"


def _by_key(sizes: list[tuple[Segment, int]]) -> dict[str, int]:
    return {segments.key(segment): size for segment, size in sizes}


def _each(
    compared: SegmentDiff, later: Mapping[str, int], sizes_before: Mapping[str, int]
) -> pl.DataFrame:
    """Every segment, its state, and its customers in the list and before."""
    states = dict.fromkeys(later, MATCHED)
    for state, some in ((NEW, compared.new), (ORPHANED, compared.orphaned)):
        states |= {segments.key(segment): state for segment in some}
    return pl.DataFrame(
        {
            "segment": list(states),
            "state": list(states.values()),
            "customers": [later.get(key, 0) for key in states],
            "before": [sizes_before.get(key, 0) for key in states],
        },
        schema={"segment": pl.String, "state": pl.String, "customers": int, "before": int},
    )


def _plan(
    campaign: CampaignRef,
    validated: Validated,
    refresh: Refresh,
    guardrails: Guardrails,
    changes: ListDiff | None,
    before: int | None,
    each: pl.DataFrame,
) -> Plan:
    def share(state: str, customers: str = "customers") -> Share:
        some = each.filter(pl.col("state") == state)
        return Share(segments=some.height, customers=int(some[customers].sum()))

    new, orphaned = share(NEW), share(ORPHANED, "before")
    counts = validated.counts(before, new.segments, orphaned.segments)
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
        quarantine=validated.quarantine,
        changes=changes,
        matched=share(MATCHED),
        new=new,
        orphaned=orphaned,
        messages=new.segments,
        quota=validated.accepted.rows,
        stops=[hit.problem for hit in guardrails.hits(counts)],
    )


def _show(plan: Plan, picture: bytes, place: str) -> None:
    rows = _rows(plan)
    table = "\n".join(f"| {what} | {number:,} |" for what, number in rows.items())
    stops = "\n".join(f"- {stop}" for stop in plan.stops) or "No guardrail would stop it."
    image = b64encode(picture).decode()
    page = f"""# Plan for {plan.campaign}, after run {plan.current_run}

| | |
|---|---:|
{table}

## Guardrails

{stops}

![Customers and segments](data:image/png;base64,{image})

To refresh by this plan, set `options.plan_id` to `{plan.plan_id}`. It lies in `{place}`.
"""
    key = artifact_key("plan", plan.campaign_id)
    create_markdown_artifact(page, key=key, description=f"Plan for {plan.campaign}")
    numbers = [{"what": what, "number": number} for what, number in rows.items()]
    create_table_artifact(numbers, key=f"{key}-numbers", description=f"Plan for {plan.campaign}")


def _rows(plan: Plan) -> dict[str, int]:
    changes = plan.changes.model_dump() if plan.changes else {}
    return {
        "rows extracted": plan.extracted,
        "rows rejected": plan.rejected,
        **{f"customers {state}": number for state, number in changes.items()},
        "segments matched": plan.matched.segments,
        "customers in matched segments": plan.matched.customers,
        "segments new": plan.new.segments,
        "customers in new segments": plan.new.customers,
        "segments removed": plan.orphaned.segments,
        "customers previously in removed segments": plan.orphaned.customers,
        "messages to generate": plan.messages,
        "messages to publish, of the quota": plan.quota,
    }
