"""The campaign before, and its publication after, the rerun."""

from datetime import datetime

from prefect import task
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict

from blocks import NudgescribeAccount
from blocks.rerun import NotCurrent, find_current_run
from blocks.storage.manifest import campaign_partition
from nudgescribe import contract
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Status
from nudgescribe.errors import NotFound, NotPublished, NudgeflowError
from tasks.policies import ONCE, READ


class Refresh(BaseModel):
    """Its `id` is that of the flow run that began it, with a number unless it is the campaign's
    first; `started` is that flow run's planned start.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    started: datetime

    @property
    def marks(self) -> tuple[str, str]:
        """What the customer group of this refresh is known by: a new one, or one to reuse, which
        lake-retention leaves to people.
        """
        return f"Nudgeflow refresh {self.id}", f"Nudgeflow refresh {self.id}, of a group reused"

    @property
    def short(self) -> str:
        """Enough of the id to tell two refreshes of a minute apart."""
        return self.id[:8] + self.id[36:]

    def group_name(self, template: str, campaign: str) -> str:
        """The name of its customer group."""
        return template.format(campaign=campaign, run=self.started)


class CampaignRef(BaseModel):
    """A campaign to refresh; `previous_run` is the run it was on before, `previous_group` holds
    that run's customers, `previous_pages` is how many pages its export has.
    """

    model_config = ConfigDict(frozen=True)

    campaign_id: str
    name: str
    workspace_id: str
    previous_run: int
    previous_group: str | None
    previous_pages: int

    @property
    def place(self) -> str:
        """The name of its folders in the lake."""
        return campaign_partition(self.campaign_id)


class RunRef(BaseModel):
    """A rerun of a campaign on the group of one refresh."""

    model_config = ConfigDict(frozen=True)

    campaign_id: str
    run_number: int
    customer_group_id: str
    job_uid: str | None


class GroupInUse(NudgeflowError):
    advice = (
        "A campaign cannot be re-run on the group it is on: name another in options.group_name, or "
        "set options.group to new."
    )


class GroupBusy(NudgeflowError):
    advice = "Its customers must not change now: publish the campaign's run, then start again."


@task(**ONCE)
def find_campaign(
    account: NudgescribeAccount, campaign_id: str, refresh: Refresh, group_name: str, reuse: bool
) -> CampaignRef:
    """The campaign, if a rerun can begin on it or has begun in this refresh.

    Raises NotFound, NotPublished; GroupInUse if the group to `reuse` is that of its current run,
    GroupBusy if another campaign's open run is on it.
    """
    with account.get_client() as client:
        workspace_id, campaign = campaign_of(client, account, campaign_id)
        groups = client.list_groups(workspace_id)
        ours = {group.customer_group_id for group in groups if group.description in refresh.marks}
        name = refresh.group_name(group_name, campaign.name)
        named = {group.customer_group_id for group in groups if group.name == name} - ours
        if reuse and campaign.customer_group_id in named:
            raise GroupInUse(f"Campaign {campaign_id} is on group '{name}' already.")
        if reuse:
            refuse_busy(client, named, name)
        return _refreshable(client, workspace_id, campaign, ours)


@task(**READ)
def publish_run(account: NudgescribeAccount, run: RunRef) -> str:
    """Publishes the run and queues its export, and returns the export's job id.

    Publishing twice only exports again: a retry may do so, and does, should the export be lost.
    Raises NotCurrent if the campaign has gone on to another run.
    """
    with account.get_client() as client:
        latest = find_current_run(client.rerun_history(run.campaign_id)).run_number
        if latest != run.run_number:
            raise NotCurrent(
                f"Campaign {run.campaign_id} is on run {latest}, not on run {run.run_number}."
            )
        job = client.publish(run.campaign_id)
    get_run_logger().info("Run %s is published, export job %s", run.run_number, job.job_uid)
    return job.job_uid


def campaign_of(
    client: NudgescribeClient, account: NudgescribeAccount, campaign_id: str
) -> tuple[str, contract.Campaign]:
    """The id of its workspace, and the campaign. Raises NotFound."""
    for workspace in client.campaigns():
        for campaign in workspace.campaigns:
            if campaign.campaign_id == campaign_id:
                return workspace.workspace_id, campaign
    raise NotFound(f"Account {account.block_name} has no campaign {campaign_id}.")


def refuse_busy(client: NudgescribeClient, group_ids: set[str], name: str) -> None:
    """Raises GroupBusy if a campaign's unpublished run is on one of these groups."""
    for workspace in client.campaigns():
        for campaign in workspace.campaigns:
            is_open = campaign.status not in (Status.PUBLISHED, Status.DRAFT)
            if is_open and campaign.customer_group_id in group_ids:
                raise GroupBusy(
                    f"Campaign {campaign.campaign_id} is {campaign.status} on group '{name}'."
                )


def _refreshable(
    client: NudgescribeClient, workspace_id: str, campaign: contract.Campaign, ours: set[str]
) -> CampaignRef:
    if campaign.status != Status.PUBLISHED and campaign.customer_group_id not in ours:
        raise NotPublished(f"Campaign {campaign.campaign_id} is {campaign.status}, not Published.")
    history = client.rerun_history(campaign.campaign_id)
    # A rerun cannot begin on the group of the current run: that one is never among ours.
    previous = find_current_run([run for run in history if run.customer_group_id not in ours])
    published = campaign.status == Status.PUBLISHED and campaign.customer_group_id in ours
    # The run before keeps the campaign's own folder until the next one is published.
    place = previous.run_number if published else None
    return CampaignRef(
        campaign_id=campaign.campaign_id,
        name=campaign.name,
        workspace_id=workspace_id,
        previous_run=previous.run_number,
        previous_group=previous.customer_group_id,
        previous_pages=client.count_message_pages(campaign.campaign_id, place),
    )
