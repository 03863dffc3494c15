"""Many refreshes at once, each a flow run of its own: started, followed, summed up."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect import task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.states import AwaitingRetry, Pending
from prefect.telemetry.run_telemetry import LABELS_TRACEPARENT_KEY
from prefect.types import KeyValueLabels
from pydantic import Field

from blocks import CampaignPortfolio, DataLake, Member, NudgescribeAccount, Portfolio
from blocks.portfolio import NoPortfolio
from nudgescribe import errors
from nudgescribe.bases import Frozen
from nudgescribe.contract import Campaign, MalformedRecord, Status
from nudgescribe.errors import NotFound, NudgeflowError, counted
from tasks.journal.entries import Journal, Step
from tasks.journal.refresh import Refresh
from tasks.policies import NEVER_CACHED, RETRIED
from tasks.ui.artifacts import link_to_flow_run, show_page
from tasks.ui.markdown import link, plain, shorten, table
from tasks.ui.signals import IN_PORTFOLIO

_STARTED_BY = "Started by flow run "
_STARTER = re.compile(rf"{_STARTED_BY}([0-9a-f-]{{36}})\.")
_OUTCOMES = {
    "Skipped": "skipped",
    "NotPublished": "skipped",
    "Joined": "joined another",
    "Stopped": "awaiting publication",
    "Suspended": "awaiting review",
}


class RefreshStatus(Frozen):
    """The refresh of one campaign: its flow run's id, the name and type of its state, and the
    state's message.
    """

    campaign_id: str
    flow_run: str = ""
    state: str = "NotStarted"
    state_type: str = ""
    message: str = ""

    @property
    def ended(self) -> bool:
        """Return whether the flow run has ended, or is suspended for its review."""
        return self.state_type in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED", "PAUSED")

    @property
    def succeeded(self) -> bool:
        """Return whether the flow run has ended well, or is suspended for its review."""
        return self.state_type in ("COMPLETED", "PAUSED")

    @property
    def outcome(self) -> str:
        """Return the outcome in words that do not presuppose Prefect's."""
        if self.state in _OUTCOMES:
            return _OUTCOMES[self.state]
        return "finished" if self.state_type == "COMPLETED" else "failed"


class NoDeployment(NudgeflowError):
    """Prefect has no deployment of this name."""

    advice = "Deploy it with `nudgeflow deploy`, or name another one in the parameters."


class ChosenCampaigns(Frozen):
    """The campaigns to refresh, and the `skipped` ones, which are not published or cannot be
    read.
    """

    members: list[Member]
    skipped: list[RefreshStatus] = Field(default=[])


@task(**RETRIED)
def choose_campaigns(
    lake: DataLake,
    run: Refresh,
    account: NudgescribeAccount,
    campaigns: list[Member],
    workspaces: list[str],
    portfolio: CampaignPortfolio | None,
    portfolio_file: str | None,
) -> ChosenCampaigns:
    """Return each campaign once, with the options of its first entry; a retry returns the same.

    Raises NoPortfolio, NotFound, ContractMismatch.
    """

    def choose() -> ChosenCampaigns:
        given = Portfolio(campaigns=campaigns, workspaces=workspaces)
        return _choose(account, [given, *_portfolios(portfolio, portfolio_file)])

    return Journal(lake.files, run.journal).step(Step.FOUND, ChosenCampaigns, choose)


def _choose(account: NudgescribeAccount, portfolios: Sequence[Portfolio]) -> ChosenCampaigns:
    members: dict[str, Member] = {}
    for portfolio in portfolios:
        for member in portfolio.campaigns:
            members.setdefault(member.campaign_id, member)
    workspaces = [workspace for portfolio in portfolios for workspace in portfolio.workspaces]
    skipped: list[RefreshStatus] = []
    for campaign in _campaigns_of(account, workspaces) if workspaces else []:
        if isinstance(campaign, MalformedRecord):
            skipped.append(_malformed(campaign))
        elif campaign.campaign_id in members:
            continue
        elif campaign.status == Status.PUBLISHED:
            members[campaign.campaign_id] = Member(campaign_id=campaign.campaign_id)
        else:
            skipped.append(_not_published(campaign))
    if not members:
        raise NoPortfolio("There is no campaign to refresh.")
    return ChosenCampaigns(members=list(members.values()), skipped=skipped)


def _portfolios(block: CampaignPortfolio | None, file: str | None) -> Iterator[Portfolio]:
    if block:
        yield block.portfolio
    if file:
        yield Portfolio.from_file(file)


def _campaigns_of(
    account: NudgescribeAccount, workspaces: Sequence[str]
) -> list[Campaign | MalformedRecord]:
    with account.get_client() as client:
        listed = client.campaigns()
    campaigns = {each.workspace_id: [*each.campaigns, *each.malformed] for each in listed}
    for workspace in set(workspaces) - campaigns.keys():
        listed.check(f"Workspace {workspace}", [workspace])
    if unknown := [workspace for workspace in workspaces if workspace not in campaigns]:
        raise NotFound(f"Account {account.block_name} has no workspace {unknown[0]}.")
    return [
        campaign for workspace in dict.fromkeys(workspaces) for campaign in campaigns[workspace]
    ]


def _malformed(record: MalformedRecord) -> RefreshStatus:
    problem = errors.malformed(f"Campaign {record.id}", record)
    return RefreshStatus(
        campaign_id=record.id, state="NotRead", state_type="FAILED", message=str(problem)
    )


def _not_published(campaign: Campaign) -> RefreshStatus:
    return RefreshStatus(
        campaign_id=campaign.campaign_id,
        state="NotPublished",
        state_type="COMPLETED",
        message=f"The campaign is {campaign.status}.",
    )


@task(**RETRIED, task_run_name="start {campaign_id}")
def start_refresh(
    deployment: str,
    campaign_id: str,
    parameters: dict[str, Any],
    key: str,
    is_over: Callable[[str], bool],
    starter: str | None = None,
) -> RefreshStatus:
    """Return the campaign's flow run, created unless there is one of this idempotency `key`. One
    that failed or was cancelled is retried, or followed by a new one if its refresh `is_over`, or
    the parameters have changed; one that was left to a starter that has ended is retried. What is
    created or retried is left to the `starter`, if there is one, and else to workers.

    Raises NoDeployment.
    """
    wanted = {"campaign_id": campaign_id, **parameters}
    with get_client(sync_client=True) as client:
        try:
            deployed = client.read_deployment_by_name(deployment)
        except ObjectNotFound:
            raise NoDeployment(f"There is no deployment {deployment}.") from None
        while True:
            run = client.create_flow_run_from_deployment(
                deployed.id,
                parameters=wanted,
                idempotency_key=key,
                state=_pending(starter) if starter else None,
                labels={IN_PORTFOLIO: True, **_trace()},
            )
            created = RefreshStatus(campaign_id=campaign_id, flow_run=str(run.id))
            refresh = _with_state(created, run.state)
            if _is_forsaken(client, refresh):
                return retry_refresh(refresh, starter)
            if refresh.succeeded or not refresh.ended:
                return refresh
            same = run.parameters == {**deployed.parameters, **wanted}
            # One that was cancelled may have left a refresh open that only itself may continue.
            if same and not is_over(refresh.flow_run):
                return retry_refresh(refresh, starter)
            key = f"{key} {run.id}"


def _trace() -> KeyValueLabels:
    """Return the label by which Prefect continues the running flow run's trace, if it has one."""
    context = FlowRunContext.get()
    labels = context.flow_run.labels if context and context.flow_run else {}
    return {name: labels[name] for name in (LABELS_TRACEPARENT_KEY,) if name in labels}


def read_statuses(refreshes: Sequence[RefreshStatus]) -> list[RefreshStatus]:
    """Return the refreshes with their present states, by one call of Prefect's server."""
    ids = [UUID(refresh.flow_run) for refresh in refreshes]
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=ids))
        states = {str(run.id): run.state for run in client.read_flow_runs(flow_run_filter=wanted)}
    return [_with_state(refresh, states.get(refresh.flow_run)) for refresh in refreshes]


def retry_refresh(refresh: RefreshStatus, starter: str | None = None) -> RefreshStatus:
    """Schedule the flow run again, as `prefect flow-run retry` does, or leave it to a starter."""
    return set_state(refresh, _pending(starter) if starter else AwaitingRetry())


def is_left_to(refresh: RefreshStatus, starter: str) -> bool:
    """Return whether the flow run waits for this starter, and for nobody else."""
    pending = _pending(starter)
    return (refresh.state, refresh.message) == (pending.name, pending.message)


def _pending(starter: str) -> State[Any]:
    # No worker takes a flow run that is Pending.
    return Pending(message=f"{_STARTED_BY}{starter}.")


def _is_forsaken(client: SyncPrefectClient, refresh: RefreshStatus) -> bool:
    """Return whether the flow run waits for a starter that has ended: it was killed."""
    starter = _STARTER.fullmatch(refresh.message) if refresh.state_type == "PENDING" else None
    if starter is None:
        return False
    try:
        state = client.read_flow_run(UUID(starter[1])).state
    except ObjectNotFound:
        return True
    return state is None or state.is_final()


def set_state(refresh: RefreshStatus, state: State[Any]) -> RefreshStatus:
    """Bring the flow run into a state, whatever it was in."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(refresh.flow_run), state, force=True)
    return _with_state(refresh, state)


def _with_state(refresh: RefreshStatus, state: State[Any] | None) -> RefreshStatus:
    now = {"state": "Deleted", "state_type": "CANCELLED", "message": "The flow run was deleted."}
    if state:
        message = state.message or ""
        now = {"state": state.name, "state_type": state.type.value, "message": message}
    return refresh.model_copy(update=now)


@task(**NEVER_CACHED)
def report_portfolio(
    account: NudgescribeAccount, refreshes: Sequence[RefreshStatus], names: Mapping[str, str]
) -> str | None:
    """Report the refreshes as a page in Prefect's UI, failed ones first; return its address.

    `names` are those of the campaigns, by their ids.
    """
    summary = describe_outcomes(refreshes)
    rows = [
        _row(refresh, names.get(refresh.campaign_id, refresh.campaign_id), account)
        for refresh in sorted(refreshes, key=lambda refresh: refresh.succeeded)
    ]
    parts = [
        f"# {counted(len(refreshes), 'campaign')}: {summary}",
        table("llll", ("campaign", "outcome", "state", ""), (row for row, _ in rows)),
        # Prefect's UI does not wrap the cells of a table.
        *(["## Why"] if any(why for _, why in rows) else []),
        *(f"{row[0]}: {why}" for row, why in rows if why),
    ]
    return show_page("\n\n".join(parts) + "\n", key="portfolio", description=summary)


def describe_outcomes(refreshes: Sequence[RefreshStatus]) -> str:
    """Return how many refreshes ended in which way; "" without any."""
    outcomes = Counter(refresh.outcome for refresh in refreshes)
    return ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items())


def read_names(account: NudgescribeAccount) -> dict[str, str]:
    """Return the names of the account's campaigns by their ids; none if they cannot be had."""
    try:
        with account.get_client() as client:
            listed = client.campaigns()
    except NudgeflowError as error:
        get_run_logger().warning("Campaigns are shown without their names: %s", error.problem)
        return {}
    return {one.campaign_id: one.name for workspace in listed for one in workspace.campaigns}


def _row(
    refresh: RefreshStatus, name: str, account: NudgescribeAccount
) -> tuple[Sequence[str], str]:
    """Return what is shown of a refresh: its row, and why it has ended so."""
    url, run = account.link_to(refresh.campaign_id), refresh.flow_run
    row = (
        # Within a link, Prefect's UI would show what makes the name plain.
        shorten(name),
        refresh.outcome,
        link_to_flow_run(refresh.state, run) if run else plain(refresh.state),
        link("open", url) if url else "",
    )
    return row, plain(refresh.message)
