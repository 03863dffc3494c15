"""Many campaigns refreshed, each by a flow run of its own."""

from collections import Counter, deque
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
from flows.run.flow_run import dated, this_refresh
from flows.run.outcomes import failed
from nudgescribe.errors import NudgeflowError
from tasks.campaigns import Refresh
from tasks.portfolio import (
    Refreshed,
    begin_again,
    choose_campaigns,
    look_at,
    report_portfolio,
    start_refresh,
)
from tasks.ui.events import announce

Period = Literal["run", "day", "week", "month"]
SECONDS_BETWEEN_LOOKS = 3.0
MOST_CRASHES = 3
"""Of a refresh: an overburdened worker loses flow runs, which then go on where they stopped."""


class PartlyFailed(NudgeflowError):
    advice = "The rest succeeded; open the failed runs and retry them."


@flow(name="portfolio-refresh", flow_run_name=dated("portfolio"))
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
) -> list[Refreshed] | State[Any]:
    """Refresh many campaigns, some at once; one that fails does not stop the others.

    Ends when each has ended or awaits review, in state PartlyFailed if some failed. A campaign is
    refreshed once in a period: a retry, and another portfolio-refresh, look after the same flow
    runs and begin those again that failed.

    Args:
        account: The Nudgescribe account.
        crm: Where the customer lists come from.
        lake: The data lake.
        campaigns: The campaigns, each with what differs from the other parameters here.
        workspaces: Ids of workspaces whose published campaigns are refreshed, too.
        portfolio: A saved list of further campaigns and workspaces.
        portfolio_file: Path of a YAML file that lists further campaigns and workspaces.
        options: Those of each refresh.
        period: How often a campaign is refreshed at most; run is once in each run of this flow.
        timezone: Where periods begin, such as Europe/London.
        at_once: How many refreshes run at the same time.
        hours: Longest wait for all of them.
        deployment: The deployment of campaign-refresh that runs them.
    """
    chosen = choose_campaigns(account, campaigns, workspaces, portfolio, portfolio_file)
    me = this_refresh()
    during = period_of(me, period, timezone)
    waiting = {
        each.campaign_id: _parameters(each, account, crm, lake, options) for each in chosen.members
    }
    keys = {each: f"{deployment} {lake.block_name} {each} {during}" for each in waiting}
    over = [*chosen.others, *_refresh_all(deployment, waiting, keys, at_once, hours)]
    report_portfolio(over)
    outcomes = Counter(each.outcome for each in over)
    announce("portfolio.refreshed", "portfolio", during, me.id, {"outcomes": dict(outcomes)})
    if bad := [each for each in over if not each.good]:
        names = ", ".join(f"{each.campaign_id} ({each.state})" for each in bad)
        return failed("PartlyFailed", PartlyFailed(f"Of {len(over)} campaigns failed: {names}."))
    return over


def _refresh_all(
    deployment: str,
    parameters: dict[str, dict[str, Any]],
    keys: dict[str, str],
    at_once: int,
    hours: float,
) -> list[Refreshed]:
    """Start each campaign's refresh when there is room, and look until all are over."""
    waiting = deque(parameters)
    running: list[Refreshed] = []
    over: list[Refreshed] = []
    crashes: Counter[str] = Counter()
    end = monotonic() + hours * 3600
    while waiting or running:
        while waiting and len(running) < at_once:
            each = waiting.popleft()
            running.append(start_refresh(deployment, each, parameters[each], keys[each]))
        seen, running = look_at(running), []
        for each in seen:
            if each.kind == "CRASHED" and crashes[each.campaign_id] < MOST_CRASHES:
                crashes[each.campaign_id] += 1
                get_run_logger().warning("Campaign %s crashed, begun again", each.campaign_id)
                running.append(begin_again(each))
            elif each.over:
                get_run_logger().info("Campaign %s: %s", each.campaign_id, each.state)
                over.append(each)
            else:
                running.append(each)
        if monotonic() >= end:
            late = "The time was up before its turn."
            return [*over, *running, *(Refreshed(campaign_id=each, said=late) for each in waiting)]
        if running:
            sleep(SECONDS_BETWEEN_LOOKS)
    return over


def _parameters(
    member: Member,
    account: NudgescribeAccount,
    crm: CrmSource,
    lake: DataLake,
    options: RefreshOptions,
) -> dict[str, Any]:
    """The parameters of a campaign's refresh. Raises NoPortfolio if its options cannot be,
    BlockNotSaved.
    """
    shared = options.model_dump(mode="json", exclude_unset=True)
    try:
        merged = RefreshOptions.model_validate({**shared, **member.options})
    except ValidationError as error:
        where = f"In the options of campaign {member.campaign_id}"
        raise NoPortfolio(f"{where}, {describe_first_error(error)}.") from None
    return {
        "account": member.account_reference or account.to_reference(),
        "crm": member.crm_reference or crm.to_reference(),
        "lake": lake.to_reference(),
        "options": merged.model_dump(mode="json", exclude_unset=True),
    }


def period_of(refresh: Refresh, period: Period, timezone: str) -> str:
    """The name of the period that a planned time belongs to."""
    if period == "run":
        return refresh.id
    try:
        local = refresh.started.astimezone(ZoneInfo(timezone))
    except (ZoneInfoNotFoundError, ValueError):
        raise NoPortfolio(f"There is no time zone {timezone}.") from None
    return local.strftime({"day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m"}[period])
