"""The campaign before, and its publication after, the rerun."""

from datetime import datetime

from prefect import task
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict

from blocks import NudgescribeAccount
from blocks.loading import load
from nudgescribe import contract
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Status
from nudgescribe.errors import NotFound, NotPublished, NudgeflowError
from tasks.policies import ONCE, READ


class Refresh(BaseModel):
    """One refresh is one flow run, however often it is retried; `started` is its planned start."""

    model_config = ConfigDict(frozen=True)

    id: str
    started: datetime

    @property
    def mark(self) -> str:
        """What the customer group of this refresh is known by."""
        return f"Nudgeflow refresh {self.id}"


class CampaignRef(BaseModel):
    """A campaign to refresh; `previous_run` is the run it was on before, `previous_pages` how many
    pages that run's export has.
    """

    model_config = ConfigDict(frozen=True)

    campaign_id: str
    name: str
    workspace_id: str
    previous_run: int
    previous_pages: int


class RunRef(BaseModel):
    """A rerun of a campaign on the group of one refresh."""

    model_config = ConfigDict(frozen=True)

    campaign_id: str
    run_number: int
    customer_group_id: str
    job_uid: str | None


class NotCurrent(NudgeflowError):
    advice = "Somebody re-ran the campaign meanwhile: look at its history before anything else."


@task(**ONCE)
def find_campaign(account: str, campaign_id: str, refresh: Refresh) -> CampaignRef:
    """The campaign, if a rerun can begin on it or has begun in this refresh.

    Raises NotFound, NotPublished.
    """
    with load(NudgescribeAccount, account).get_client() as client:
        return _refreshable(client, *campaign_of(client, account, campaign_id), refresh)


@task(**READ)
def publish_campaign(account: str, run: RunRef) -> str:
    """Publishes the run and queues its export, and returns the export's job id.

    Publishing twice only exports again: a retry may do so, and does, should the export be lost.
    Raises NotCurrent if the campaign has gone on to another run.
    """
    with load(NudgescribeAccount, account).get_client() as client:
        latest = newest(client.rerun_history(run.campaign_id))
        if latest != run.run_number:
            raise NotCurrent(
                f"Campaign {run.campaign_id} is on run {latest}, not on run {run.run_number}."
            )
        job = client.publish(run.campaign_id)
    get_run_logger().info("Run %s is published, export job %s", run.run_number, job.job_uid)
    return job.job_uid


def campaign_of(
    client: NudgescribeClient, account: str, campaign_id: str
) -> tuple[str, contract.Campaign]:
    """The id of its workspace, and the campaign. Raises NotFound."""
    for workspace in client.campaigns():
        for campaign in workspace.campaigns:
            if campaign.campaign_id == campaign_id:
                return workspace.workspace_id, campaign
    raise NotFound(f"Account {account} has no campaign {campaign_id}.")


def newest(history: list[contract.Run]) -> int:
    return max(run.run_number for run in history if run.status != Status.FAILED)


def _refreshable(
    client: NudgescribeClient, workspace_id: str, campaign: contract.Campaign, refresh: Refresh
) -> CampaignRef:
    groups = client.list_groups(workspace_id)
    ours = {group.customer_group_id for group in groups if group.description == refresh.mark}
    if campaign.status != Status.PUBLISHED and campaign.customer_group_id not in ours:
        raise NotPublished(f"Campaign {campaign.campaign_id} is {campaign.status}, not Published.")
    history = client.rerun_history(campaign.campaign_id)
    previous = newest([run for run in history if run.customer_group_id not in ours])
    published = campaign.status == Status.PUBLISHED and campaign.customer_group_id in ours
    # The run before keeps the campaign's own folder until the next one is published.
    place = previous if published else None
    return CampaignRef(
        campaign_id=campaign.campaign_id,
        name=campaign.name,
        workspace_id=workspace_id,
        previous_run=previous,
        previous_pages=client.count_message_pages(campaign.campaign_id, place),
    )
