"""Many refreshes at once, each a flow run of its own: begun, looked after, summed up."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry
from pydantic import BaseModel, ConfigDict

from blocks import CampaignPortfolio, Member, NudgescribeAccount, Portfolio
from blocks.portfolio import NoPortfolio
from nudgescribe.contract import Campaign, Status
from nudgescribe.errors import NotFound, NudgeflowError
from tasks.policies import NEVER_CACHED, ONCE, READ

_OUTCOMES = {
    "Skipped": "skipped",
    "NotPublished": "skipped",
    "Joined": "joined another",
    "Stopped": "waits to be published",
    "Suspended": "waits for its review",
}


class Refreshed(BaseModel):
    """What became of a campaign's refresh: the state of its flow run and what that says."""

    model_config = ConfigDict(frozen=True)

    campaign_id: str
    flow_run: str = ""
    state: str = "NotStarted"
    kind: str = ""
    said: str = ""

    @property
    def over(self) -> bool:
        """Whether it ended, or sleeps until people have approved."""
        return self.kind in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED", "PAUSED")

    @property
    def good(self) -> bool:
        return self.kind in ("COMPLETED", "PAUSED")

    @property
    def outcome(self) -> str:
        """In a word that needs no knowledge of Prefect."""
        if self.state in _OUTCOMES:
            return _OUTCOMES[self.state]
        return "finished" if self.kind == "COMPLETED" else "failed"


class NoDeployment(NudgeflowError):
    advice = "Deploy it with `prefect deploy`, or name another one in the parameters."


class Chosen(BaseModel):
    """The campaigns to refresh, and those of the workspaces that cannot be, as they are."""

    model_config = ConfigDict(frozen=True)

    members: list[Member]
    others: list[Refreshed] = []


@task(**ONCE)
def choose_campaigns(
    account: NudgescribeAccount,
    campaigns: list[Member],
    workspaces: list[str],
    portfolio: CampaignPortfolio | None,
    portfolio_file: str | None,
) -> Chosen:
    """Each campaign once, listed ones with what their entry says; a retry has the same ones.

    Raises NoPortfolio, NotFound.
    """
    listed, asked = list(campaigns), list(workspaces)
    for more in _portfolios(portfolio, portfolio_file):
        listed += more.campaigns
        asked += more.workspaces
    members: dict[str, Member] = {}
    for each in listed:
        members.setdefault(each.campaign_id, each)
    others: list[Refreshed] = []
    if asked:
        for campaign in _campaigns_of(account, asked):
            if campaign.campaign_id in members:
                continue
            if campaign.status == Status.PUBLISHED:
                members[campaign.campaign_id] = Member(campaign_id=campaign.campaign_id)
            else:
                others.append(_not_published(campaign))
    if not members:
        raise NoPortfolio("There is no campaign to refresh.")
    return Chosen(members=list(members.values()), others=others)


def _portfolios(block: CampaignPortfolio | None, file: str | None) -> Iterator[Portfolio]:
    if block:
        yield block.portfolio
    if file:
        yield Portfolio.from_file(file)


def _campaigns_of(account: NudgescribeAccount, workspaces: Sequence[str]) -> list[Campaign]:
    with account.get_client() as client:
        there = {each.workspace_id: each.campaigns for each in client.campaigns()}
    if unknown := [each for each in workspaces if each not in there]:
        raise NotFound(f"Account {account.block_name} has no workspace {unknown[0]}.")
    return [campaign for each in dict.fromkeys(workspaces) for campaign in there[each]]


def _not_published(campaign: Campaign) -> Refreshed:
    return Refreshed(
        campaign_id=campaign.campaign_id,
        state="NotPublished",
        kind="COMPLETED",
        said=f"The campaign is {campaign.status}.",
    )


@task(**READ, task_run_name="start {campaign_id}")
def start_refresh(
    deployment: str, campaign_id: str, parameters: dict[str, Any], key: str
) -> Refreshed:
    """The campaign's flow run, made unless there is one of the same `key`; one that went wrong is
    begun again, or followed by another if the parameters have changed. Raises NoDeployment.
    """
    wanted = {"campaign_id": campaign_id, **parameters}
    with get_client(sync_client=True) as client:
        try:
            deployed = client.read_deployment_by_name(deployment)
        except ObjectNotFound:
            raise NoDeployment(f"There is no deployment {deployment}.") from None
        while True:
            run = client.create_flow_run_from_deployment(
                deployed.id, parameters=wanted, idempotency_key=key
            )
            begun = _seen(Refreshed(campaign_id=campaign_id, flow_run=str(run.id)), run.state)
            if begun.good or not begun.over:
                return begun
            if run.parameters == {**deployed.parameters, **wanted}:
                return begin_again(begun)
            key = f"{key} {run.id}"


def look_at(refreshes: Sequence[Refreshed]) -> list[Refreshed]:
    """The same refreshes as they are now, by one call of Prefect's server."""
    ids = [UUID(each.flow_run) for each in refreshes]
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=ids))
        runs = {str(run.id): run.state for run in client.read_flow_runs(flow_run_filter=wanted)}
    return [_seen(each, runs.get(each.flow_run)) for each in refreshes]


def _seen(refreshed: Refreshed, state: State[Any] | None) -> Refreshed:
    if state is None:
        gone = {"state": "Deleted", "kind": "CANCELLED", "said": "The flow run is gone."}
        return refreshed.model_copy(update=gone)
    now = {"state": state.name, "kind": state.type.value, "said": state.message or ""}
    return refreshed.model_copy(update=now)


def begin_again(refreshed: Refreshed) -> Refreshed:
    """Has a worker take up a crashed flow run once more, as `prefect flow-run retry` does."""
    state = AwaitingRetry()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(refreshed.flow_run), state, force=True)
    return refreshed.model_copy(update={"state": state.name, "kind": state.type.value})


@task(**NEVER_CACHED)
def report_portfolio(refreshes: Sequence[Refreshed]) -> None:
    """The refreshes as a table in the UI, those that went wrong first."""
    outcomes = Counter(each.outcome for each in refreshes)
    rows = [
        {
            "campaign": each.campaign_id,
            "outcome": each.outcome,
            "why": each.said,
            "state": each.state,
            "flow run": each.flow_run,
        }
        for each in sorted(refreshes, key=lambda each: each.good)
    ]
    create_table_artifact(
        rows,
        key="portfolio",
        description=", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()),
    )
