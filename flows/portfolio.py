"""The refresh of many campaigns, each by a flow run of its own."""

from collections import Counter, deque
from dataclasses import dataclass
from functools import partial
from time import monotonic, sleep
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from pydantic import Field, ValidationError

from blocks import CampaignPortfolio, Crm, CrmSource, DataLake, Member, NudgescribeAccount
from blocks.portfolio import NoPortfolio, describe_first_error
from flows.options import RefreshOptions
from flows.run.flow_run import dated, this_run
from flows.run.outcomes import failed
from nudgescribe.errors import NudgeflowError, first_ten
from tasks.journal.flow_runs import journaled
from tasks.journal.refresh import Refresh
from tasks.portfolio import (
    RefreshStatus,
    choose_campaigns,
    read_statuses,
    report_portfolio,
    retry_refresh,
    start_refresh,
)
from tasks.refresh.claim import cannot_go_on
from tasks.ui.signals import announce

Period = Literal["run", "day", "week", "month"]
POLL_SECONDS = 3.0
MOST_CRASHES = 3
"""Of one refresh: an overloaded worker loses flow runs, and a retry continues them."""


class PartlyFailed(NudgeflowError):
    """Some refreshes of a portfolio have failed."""

    advice = "The rest succeeded; open the failed runs and retry them."


@flow(name="portfolio-refresh", flow_run_name=dated("portfolio"), persist_result=False)
def portfolio_refresh(
    account: NudgescribeAccount,
    crm: Crm,
    lake: DataLake,
    campaigns: list[Member] = [],  # noqa: B006 - never changed
    workspaces: list[str] = [],  # noqa: B006
    portfolio: CampaignPortfolio | None = None,
    portfolio_file: str | None = None,
    options: RefreshOptions = RefreshOptions(review="suspend"),  # noqa: B008 - frozen
    period: Period = "day",
    timezone: str = "UTC",
    at_once: Annotated[int, Field(ge=1, le=100)] = 20,
    hours: float = 24,
    deployment: str = "campaign-refresh/portfolio",
) -> list[RefreshStatus] | State[Any]:
    """Refresh many campaigns, some at once; one that fails does not stop the others.

    Ends when each has ended or is awaiting review, in state PartlyFailed if some failed. A campaign
    is refreshed once per period: a retry, or another portfolio-refresh, follows the same flow runs
    and retries those that failed; one whose refresh was ended is followed by another flow run.

    Args:
        account: The Nudgescribe account.
        crm: Where the customer lists come from.
        lake: The data lake.
        campaigns: The campaigns, each with the parameters that differ from the ones here.
        workspaces: IDs of workspaces whose published campaigns are refreshed, too.
        portfolio: A saved list of further campaigns and workspaces.
        portfolio_file: Path of a YAML file that lists further campaigns and workspaces.
        options: Settings of each refresh.
        period: A campaign is refreshed once per period; run means each run of this flow.
        timezone: Time zone of the periods, such as Europe/London.
        at_once: Maximum refreshes that run at the same time.
        hours: Maximum wait for all of them, in hours.
        deployment: The deployment of campaign-refresh that runs them.
    """
    try:
        with journaled(lake, this_run(), resumable=True) as run:
            chosen = choose_campaigns(
                lake, run, account, campaigns, workspaces, portfolio, portfolio_file
            )
            during = period_of(run, period, timezone)
            planned = [
                _plan(member, account, crm, lake, options, deployment, during)
                for member in chosen.members
            ]
            done = _refresh_all(lake, deployment, planned, at_once, hours)
            refreshes = [*chosen.skipped, *done]
            _report(refreshes, during, run)
    except PartlyFailed as error:
        return failed("PartlyFailed", error)
    return refreshes


@dataclass(frozen=True)
class PlannedRefresh:
    """A refresh to start, with the idempotency `key` of its flow run."""

    campaign_id: str
    parameters: dict[str, Any]
    key: str


def _refresh_all(
    lake: DataLake, deployment: str, planned: list[PlannedRefresh], at_once: int, hours: float
) -> list[RefreshStatus]:
    """Start refreshes as others end, and poll their states until all have ended."""
    waiting = deque(planned)
    running: list[RefreshStatus] = []
    ended: list[RefreshStatus] = []
    crashes: Counter[str] = Counter()
    end = monotonic() + hours * 3600
    while waiting or running:
        while waiting and len(running) < at_once:
            next_ = waiting.popleft()
            is_over = partial(cannot_go_on, lake, next_.campaign_id)
            running.append(
                start_refresh(deployment, next_.campaign_id, next_.parameters, next_.key, is_over)
            )
        polled, running = read_statuses(running), []
        for refresh in polled:
            campaign_id = refresh.campaign_id
            if refresh.state_type == "CRASHED" and crashes[campaign_id] < MOST_CRASHES:
                crashes[campaign_id] += 1
                get_run_logger().warning("Campaign %s crashed and is retried", campaign_id)
                running.append(retry_refresh(refresh))
            elif refresh.ended:
                get_run_logger().info("Campaign %s: %s", campaign_id, refresh.state)
                ended.append(refresh)
            else:
                running.append(refresh)
        if monotonic() >= end:
            return [*ended, *running, *map(_not_started, waiting)]
        if running:
            sleep(POLL_SECONDS)
    return ended


def _report(refreshes: list[RefreshStatus], during: str, run: Refresh) -> None:
    """Show people and other teams how the campaigns ended. Raises PartlyFailed."""
    report_portfolio(refreshes)
    outcomes = Counter(one.outcome for one in refreshes)
    announce("portfolio.refreshed", "portfolio", during, run.id, {"outcomes": dict(outcomes)})
    if failures := [one for one in refreshes if not one.succeeded]:
        names = first_ten(f"{one.campaign_id} ({one.state})" for one in failures)
        raise PartlyFailed(f"{len(failures)} of {len(refreshes)} campaigns failed: {names}.")


def _not_started(planned: PlannedRefresh) -> RefreshStatus:
    message = "The time for all refreshes was up before it started."
    return RefreshStatus(campaign_id=planned.campaign_id, message=message)


def _plan(
    member: Member,
    account: NudgescribeAccount,
    crm: CrmSource,
    lake: DataLake,
    options: RefreshOptions,
    deployment: str,
    during: str,
) -> PlannedRefresh:
    """Return a campaign's refresh, the only one of its deployment and lake `during` a period.

    Raises NoPortfolio if its options are not valid, BlockNotSaved.
    """
    shared = options.model_dump(mode="json", exclude_unset=True)
    try:
        merged = RefreshOptions.model_validate({**shared, **member.options})
    except ValidationError as error:
        where = f"In the options of campaign {member.campaign_id}"
        raise NoPortfolio(f"{where}, {describe_first_error(error)}.") from None
    parameters = {
        "account": member.account_reference or account.to_reference(),
        "crm": member.crm_reference or crm.to_reference(),
        "lake": lake.to_reference(),
        "options": merged.model_dump(mode="json", exclude_unset=True),
    }
    key = f"{deployment} {lake.block_name} {member.campaign_id} {during}"
    return PlannedRefresh(member.campaign_id, parameters, key)


def period_of(run: Refresh, period: Period, timezone: str) -> str:
    """Return the name of the period that the planned time belongs to. Raises NoPortfolio."""
    if period == "run":
        return run.id
    try:
        local = run.started.astimezone(ZoneInfo(timezone))
    except (ZoneInfoNotFoundError, ValueError):
        raise NoPortfolio(f"There is no time zone {timezone}.") from None
    match period:
        case "day":
            return f"{local:%Y-%m-%d}"
        case "week":
            return f"{local:%G-W%V}"
        case "month":
            return f"{local:%Y-%m}"
