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
from prefect.states import Crashed
from pydantic import Field, ValidationError

from blocks import CampaignPortfolio, Crm, CrmSource, DataLake, Member, NudgescribeAccount
from blocks.portfolio import NoPortfolio, describe_first_error
from flows.options import RefreshOptions
from flows.run.flow_run import check_reachable, dated, this_run
from flows.run.forks import MOST, Forks, cancel
from flows.run.outcomes import failed
from flows.run.parameters import tells_of_blocks
from nudgescribe.bases import Closing
from nudgescribe.errors import NudgeflowError, counted, first_ten
from tasks.journal.flow_runs import journaled
from tasks.journal.refresh import Refresh
from tasks.portfolio import (
    RefreshStatus,
    choose_campaigns,
    describe_outcomes,
    is_left_to,
    read_names,
    read_statuses,
    report_portfolio,
    retry_refresh,
    set_state,
    start_refresh,
)
from tasks.refresh.claim import cannot_go_on
from tasks.ui.artifacts import link_report
from tasks.ui.signals import announce

Period = Literal["run", "day", "week", "month"]
RunOn = Literal["this machine", "workers"]
POLL_SECONDS = 3.0
MOST_CRASHES = 3
"""Of one refresh: an overloaded worker loses flow runs, and a retry continues them."""


class PartlyFailed(NudgeflowError):
    """Some refreshes of a portfolio have failed."""

    advice = "Open the failed runs and retry them."


@tells_of_blocks
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
    run_on: RunOn = "this machine",
    deployment: str = "campaign-refresh/refresh-for-portfolio",
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
        run_on: Where refreshes run: on the machine of this flow run, which forks a process for each
            and runs at most three per core; or on workers of the deployment, for big campaigns.
        deployment: The deployment of campaign-refresh whose flow runs they are.
    """
    try:
        check_reachable(lake)
        with journaled(lake, this_run(), resumable=True) as run:
            check_reachable(account)
            chosen = choose_campaigns(
                lake, run, account, campaigns, workspaces, portfolio, portfolio_file
            )
            during = period_of(run, period, timezone)
            planned = [
                _plan(member, account, crm, lake, options, deployment, during)
                for member in chosen.members
            ]
            with Refreshes(lake, deployment, run.id, run_on) as started:
                refreshes = [*chosen.skipped, *started.run(planned, at_once, hours)]
            _report(account, refreshes, during, run)
    except PartlyFailed as error:
        return failed("PartlyFailed", error)
    return refreshes


@dataclass(frozen=True)
class PlannedRefresh:
    """A refresh to start, with the idempotency `key` of its flow run."""

    campaign_id: str
    parameters: dict[str, Any]
    key: str


class Refreshes(Closing):
    """Starts refreshes and follows them, those on this machine with a process for each."""

    def __init__(self, lake: DataLake, deployment: str, starter: str, run_on: RunOn) -> None:
        self._lake = lake
        self._deployment = deployment
        self._forks = Forks() if run_on == "this machine" else None
        self._starter = starter if self._forks else None
        self._gone: set[str] = set()
        self._crashes = Counter[str]()

    def close(self) -> None:
        """End what has forked the processes; those that still work go on."""
        if self._forks:
            self._forks.close()

    def run(self, planned: list[PlannedRefresh], at_once: int, hours: float) -> list[RefreshStatus]:
        """Start refreshes as others end, and poll their states until all have ended."""
        at_once = min(at_once, MOST) if self._forks else at_once
        waiting = deque(planned)
        running: list[RefreshStatus] = []
        ended: list[RefreshStatus] = []
        end = monotonic() + hours * 3600
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(self._start(waiting.popleft()))
            polled, running = [self._settle(each) for each in read_statuses(running)], []
            for refresh in polled:
                if refresh.ended:
                    get_run_logger().info("Campaign %s: %s", refresh.campaign_id, refresh.state)
                    ended.append(refresh)
                else:
                    running.append(refresh)
            if monotonic() >= end:
                return [*ended, *running, *map(_not_started, waiting)]
            if running:
                self._wait()
        return ended

    def _start(self, planned: PlannedRefresh) -> RefreshStatus:
        is_over = partial(cannot_go_on, self._lake, planned.campaign_id)
        refresh = start_refresh(
            self._deployment,
            planned.campaign_id,
            planned.parameters,
            planned.key,
            is_over,
            self._starter,
        )
        return self._work_on(refresh)

    def _work_on(self, refresh: RefreshStatus) -> RefreshStatus:
        if self._forks and self._starter and is_left_to(refresh, self._starter):
            self._forks.start(refresh.flow_run)
        return refresh

    def _wait(self) -> None:
        if self._forks:
            # The states that are read afterwards are the last ones of these.
            self._gone = self._forks.wait(POLL_SECONDS)
        else:
            sleep(POLL_SECONDS)

    def _settle(self, refresh: RefreshStatus) -> RefreshStatus:
        """Return the refresh as it is now; one that has crashed is retried."""
        if self._forks:
            refresh = _after_process(self._forks, refresh, refresh.flow_run in self._gone)
        campaign_id = refresh.campaign_id
        if refresh.state_type == "CRASHED" and self._crashes[campaign_id] < MOST_CRASHES:
            self._crashes[campaign_id] += 1
            get_run_logger().warning("Campaign %s crashed and is retried", campaign_id)
            return self._work_on(retry_refresh(refresh, self._starter))
        return refresh


def _after_process(forks: Forks, refresh: RefreshStatus, gone: bool) -> RefreshStatus:
    """Do what a worker does to a flow run that is to be cancelled, or whose process is gone."""
    match refresh.state_type:
        # Prefect's engine calls it crashed that its process was told to end.
        case "CANCELLING" | "CRASHED" if gone and refresh.flow_run in forks.stopped:
            cancel(refresh.flow_run)
            (refresh,) = read_statuses([refresh])
        case "CANCELLING":
            forks.stop(refresh.flow_run)
        case "PENDING" | "RUNNING" if gone:
            return set_state(refresh, Crashed(message="Its process has ended half-way."))
        case _:
            pass
    return refresh


def _report(
    account: NudgescribeAccount, refreshes: list[RefreshStatus], during: str, run: Refresh
) -> None:
    """Show people and other teams how the campaigns ended. Raises PartlyFailed."""
    names = read_names(account)
    report = report_portfolio(account, refreshes, names)
    link_report(report, f"{counted(len(refreshes), 'campaign')}: {describe_outcomes(refreshes)}.")
    outcomes = Counter(one.outcome for one in refreshes)
    announce("portfolio.refreshed", "portfolio", during, run.id, {"outcomes": dict(outcomes)})
    if failures := [one for one in refreshes if not one.succeeded]:
        said = first_ten(
            f"{names.get(one.campaign_id, one.campaign_id)} ({one.state})" for one in failures
        )
        rest = describe_outcomes([one for one in refreshes if one.succeeded])
        raise PartlyFailed(
            f"{len(failures)} of {counted(len(refreshes), 'campaign')} failed: {said}. The others: "
            f"{rest or 'none'}."
        )


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
