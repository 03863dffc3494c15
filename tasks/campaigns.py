"""The campaign: found before its rerun, published after it."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from prefect import task
from prefect.logging import get_run_logger

from blocks import DataLake, NudgescribeAccount
from blocks.rerun import check_current, find_current_run, refuse_unknown
from blocks.storage.manifest import campaign_partition
from nudgescribe import contract
from nudgescribe.bases import Frozen
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Status
from nudgescribe.errors import NotFound, NotPublished, NudgeflowError
from tasks.group_names import group_name
from tasks.journal.entries import Journal, JournalDamaged, Step
from tasks.journal.refresh import Claimed, Holder, Refresh
from tasks.policies import RETRIED
from tasks.ui.signals import name_flow_run


class CampaignRef(Frozen):
    """A campaign to refresh. `previous_run` is the run it is on before the rerun, `previous_group`
    that run's customer group, `previous_pages` the number of pages of its export; `workspace` is
    its name.
    """

    campaign_id: str
    name: str
    workspace_id: str
    workspace: str = ""
    previous_run: int
    previous_group: str | None
    previous_pages: int

    @property
    def partition(self) -> str:
        """Return the name of its folders in the lake, `campaign_id=…`."""
        return campaign_partition(self.campaign_id)


class RunRef(Frozen):
    """A rerun of a campaign on the customer group of one refresh."""

    campaign_id: str
    run_number: int
    customer_group_id: str
    job_uid: str | None


class Published(Frozen):
    """When a run was published."""

    at: datetime


class RunOpen(NotPublished):
    """The run of an abandoned refresh is still unpublished."""

    advice = (
        "Publish it or remove it in the platform; until then no refresh of the campaign can begin."
    )


class JournalMissing(NudgeflowError):
    """The refresh has begun in another lake than this one."""

    advice = (
        "Mount the lake in which the refresh began, or point the lake block to it, then retry; or "
        "cancel this flow run and end the refresh there with the flow abandon-refresh."
    )


class GroupInUse(NudgeflowError):
    """The campaign's current run is on the group to reuse."""

    advice = (
        "A campaign cannot be re-run on the group it is on: name another in options.group_name, or "
        "set options.group to new."
    )


class GroupBusy(NudgeflowError):
    """Another refresh or an unpublished run needs the group as it is."""

    advice = (
        "Its customers must not change now: have the run published, or end its refresh with the "
        "flow abandon-refresh. If no refresh needs the group, clear its description."
    )


@task(**RETRIED)
def find_campaign(
    account: NudgescribeAccount,
    campaign_id: str,
    lake: DataLake,
    refresh: Refresh,
    template: str,
    reuse: bool,
    abandoned: str = "",
) -> CampaignRef:
    """Return the campaign, if a rerun can begin on it or has begun in this refresh; a retry returns
    the same. `abandoned` tells what became of the refresh before, should its run still be open.

    Raises NotFound, NotPublished, RunOpen; JournalMissing if the refresh has begun in another lake;
    with `reuse` GroupInUse if the campaign's current run is on the group of this name, GroupBusy if
    an unpublished run of another campaign is; GroupNameRefused.
    """
    journal = Journal(lake.files, refresh.journal)

    def find() -> CampaignRef:
        with account.get_client() as client:
            workspace, campaign = campaign_of(client, account, campaign_id)
            with named_if_refused(workspace, campaign):
                ours = _own_groups(client, workspace, campaign, lake, refresh, template, reuse)
                return _refreshable(client, workspace, campaign, ours, abandoned)

    return journal.step(Step.FOUND, CampaignRef, find)


def _own_groups(
    client: NudgescribeClient,
    workspace: contract.WorkspaceCampaigns,
    campaign: contract.Campaign,
    lake: DataLake,
    refresh: Refresh,
    template: str,
    reuse: bool,
) -> set[str]:
    """Return the ids of the groups that the refresh has made or reused already.

    Raises JournalMissing, GroupInUse, GroupBusy, GroupNameRefused.
    """
    groups = client.list_groups(workspace.workspace_id)
    groups.check(f"A group of refresh {refresh.id}", refresh.markers)
    ours = {group.customer_group_id for group in groups if refresh.owns(group)}
    if unknown := _unknown_holder(lake, refresh, groups):
        raise JournalMissing(
            f"A customer group of refresh {unknown} is at Nudgescribe already, but lake "
            f"{lake.files.root} knows nothing of it."
        )
    name = group_name(template, campaign.name, refresh.started)
    named = {group.customer_group_id for group in groups if group.name == name} - ours
    if reuse and campaign.customer_group_id in named:
        raise GroupInUse(f"Campaign {campaign.campaign_id} is on group '{name}' already.")
    if reuse:
        groups.check(f"Group '{name}'", [name])
        refuse_busy(client, named, name)
    return ours


@contextmanager
def named_if_refused(
    workspace: contract.WorkspaceCampaigns, campaign: contract.Campaign
) -> Generator[None]:
    """Name the flow run by its campaign if the block fails, before the flow has named it."""
    try:
        yield
    except NudgeflowError:
        name_flow_run(campaign.name, called(workspace))
        raise


def called(workspace: contract.WorkspaceCampaigns) -> str:
    """Return what people call a workspace: its id where it has no name."""
    return workspace.name or workspace.workspace_id


@task(**RETRIED)
def publish_run(
    account: NudgescribeAccount, run: RunRef, lake: DataLake, refresh: Refresh
) -> Published:
    """Publish the run, which queues its export, and return when it was published first.

    A second publication only exports again, so a retry may publish once more, and does so in case
    the export was lost. Raises NotCurrent if the campaign has moved on to another run,
    ErasureKeyWrong if its messages could not be fetched.
    """
    journal = Journal(lake.files, refresh.journal)
    journal.check_owner()
    lake.tombstones()
    with account.get_client() as client:
        history = client.rerun_history(run.campaign_id)
        check_current(run.campaign_id, history, run.run_number)
        job = client.publish(run.campaign_id)
    get_run_logger().info("Run %s is published, export job %s", run.run_number, job.job_uid)
    return journal.add(Step.PUBLISHED, Published(at=datetime.now(UTC).replace(microsecond=0)))


def campaign_of(
    client: NudgescribeClient, account: NudgescribeAccount, campaign_id: str
) -> tuple[contract.WorkspaceCampaigns, contract.Campaign]:
    """Return the campaign with its workspace.

    Raises NotFound, UnknownState, ContractMismatch.
    """
    workspaces = client.campaigns()
    for workspace in workspaces:
        for campaign in workspace.campaigns:
            if campaign.campaign_id == campaign_id:
                refuse_unknown(f"Campaign {campaign_id}", campaign.status)
                return workspace, campaign
    workspaces.check(f"Campaign {campaign_id}", [campaign_id])
    raise NotFound(f"Account {account.block_name} has no campaign {campaign_id}.")


def refuse_busy(client: NudgescribeClient, group_ids: set[str], name: str) -> None:
    """Raise GroupBusy if a campaign's unpublished run is on one of these groups."""
    workspaces = client.campaigns()
    workspaces.check(f"A campaign on group '{name}'", group_ids)
    for workspace in workspaces:
        for campaign in workspace.campaigns:
            unpublished = campaign.status not in (Status.PUBLISHED, Status.DRAFT)
            if unpublished and campaign.customer_group_id in group_ids:
                raise GroupBusy(
                    f"Campaign {campaign.campaign_id} is {campaign.status} on group '{name}'."
                )


@task(**RETRIED)
def describe_open_run(account: NudgescribeAccount, campaign_id: str) -> str | None:
    """Return what people must do about the campaign's unpublished run; None if it has none."""
    with account.get_client() as client:
        _, campaign = campaign_of(client, account, campaign_id)
    if campaign.status in (Status.PUBLISHED, Status.DRAFT):
        return None
    return f"{_run_of(campaign)} is {campaign.status}. {RunOpen.advice}"


def _run_of(campaign: contract.Campaign) -> str:
    number = "The newest run" if campaign.current_run is None else f"Run {campaign.current_run}"
    return f"{number} of campaign {campaign.campaign_id}"


def _unknown_holder(
    lake: DataLake, refresh: Refresh, groups: Iterable[contract.CustomerGroup]
) -> str | None:
    """Return a refresh that this one's flow run has made a group for in another lake."""
    for holder in filter(None, map(Holder.of, groups)):
        if holder.refresh == refresh.id:
            # Version 0.1 noted the list, but not the campaign.
            is_here = Step.VALIDATED in Journal(lake.files, refresh.journal).contents().steps
        else:
            is_here = not holder.is_by_same_flow_run(refresh) or _is_here(lake, refresh, holder)
        if not is_here:
            return holder.refresh
    return None


def _is_here(lake: DataLake, refresh: Refresh, holder: Holder) -> bool:
    """Return whether the holder has a journal beside that of a later refresh of its flow run, or
    had one until retention removed it, which leaves a gap.
    """
    journals = refresh.journal.rpartition("/")[0]
    path = f"{journals}/{holder.number:08d}"
    with suppress(JournalDamaged):
        claimed = Journal(lake.files, path).find(Step.CLAIMED, Claimed)
        if claimed is None and holder.number < Holder(refresh=refresh.id).number:
            return True
        known = claimed is not None and claimed.refresh.id == holder.refresh
        return known or lake.files.exists(f"{path}.json")  # an entry of version 0.1
    return True


def _refreshable(
    client: NudgescribeClient,
    workspace: contract.WorkspaceCampaigns,
    campaign: contract.Campaign,
    ours: set[str],
    abandoned: str,
) -> CampaignRef:
    if campaign.status != Status.PUBLISHED and campaign.customer_group_id not in ours:
        if abandoned:
            raise RunOpen(
                f"{_run_of(campaign)} is {campaign.status}. Its refresh is over: {abandoned}."
            )
        raise NotPublished(f"Campaign {campaign.campaign_id} is {campaign.status}, not Published.")
    history = client.rerun_history(campaign.campaign_id)
    # A rerun cannot begin on the group of the current run: that one is never among ours.
    others = [run for run in history if run.customer_group_id not in ours]
    previous = find_current_run(campaign.campaign_id, others)
    published = campaign.status == Status.PUBLISHED and campaign.customer_group_id in ours
    # The previous run keeps the campaign's own folder until the next one is published.
    folder = previous.run_number if published else None
    return CampaignRef(
        campaign_id=campaign.campaign_id,
        name=campaign.name,
        workspace_id=workspace.workspace_id,
        workspace=called(workspace),
        previous_run=previous.run_number,
        previous_group=previous.customer_group_id,
        previous_pages=client.count_message_pages(campaign.campaign_id, folder),
    )
