"""The customer group of a refresh: made once, filled with the accepted customers."""

from prefect import task
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict

from blocks import DataLake, NudgescribeAccount
from blocks.loading import load
from nudgescribe import contract, rfc4180
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Text
from nudgescribe.errors import BadRequest, ConnectionFailed, NudgeflowError, ServerError
from nudgescribe.polling import poll
from tasks.campaigns import CampaignRef, Refresh
from tasks.policies import ONCE
from tasks.staging import Staged, batches, local_copy

SETTLE_SECONDS = 1800.0
"""How long an upload the service works off in the background may take."""


class GroupRef(BaseModel):
    model_config = ConfigDict(frozen=True)

    workspace_id: str
    customer_group_id: str
    name: str


class UploadIncomplete(NudgeflowError):
    advice = "No rerun was started. Retry this flow run; the upload is repeated harmlessly."


@task(**ONCE)
def create_group(account: str, campaign: CampaignRef, template: str, refresh: Refresh) -> GroupRef:
    """The customer group of this refresh: the one it made before, or a new one."""
    name = template.format(campaign=campaign.name, run=refresh.started)
    with load(NudgescribeAccount, account).get_client() as client:
        group = _made_before(client, campaign, refresh) or _create(client, campaign, name, refresh)
    get_run_logger().info("Customer group %s: %s", group.customer_group_id, group.name)
    return GroupRef(
        workspace_id=campaign.workspace_id,
        customer_group_id=group.customer_group_id,
        name=group.name,
    )


@task(**ONCE)
def upload_customers(account: str, group: GroupRef, accepted: Staged, lake: str) -> int:
    """Uploads the accepted rows in chunks and returns the group's size, which equals theirs.

    The service upserts by identifier, so a repeated upload changes nothing.
    Raises UploadIncomplete if the service refuses a row or ends up with another number.
    """
    log = get_run_logger()
    with (
        load(NudgescribeAccount, account).get_client() as client,
        local_copy(load(DataLake, lake), accepted) as source,
    ):
        sent = 0
        for frame in batches(source):
            result = client.upload_customers(
                group.workspace_id, group.customer_group_id, rfc4180.write(frame)
            )
            _check_upload(result, sent)
            sent += frame.height
            log.info("Uploaded %s of %s customers", f"{sent:,}", f"{accepted.rows:,}")
        return _settled_size(client, group, accepted.rows)


def _made_before(
    client: NudgescribeClient, campaign: CampaignRef, refresh: Refresh
) -> contract.CustomerGroup | None:
    groups = client.list_groups(campaign.workspace_id)
    return next((group for group in groups if group.description == refresh.mark), None)


def _create(
    client: NudgescribeClient, campaign: CampaignRef, name: str, refresh: Refresh
) -> contract.CustomerGroup:
    try:
        return client.create_group(campaign.workspace_id, name, refresh.mark)
    except BadRequest as error:
        if Text.GROUP_EXISTS not in error.problem:
            raise
        # Another refresh of the same minute has the name: ours gets the flow run's short id.
        longer = f"{name} ({refresh.id[:8]})"
        return client.create_group(campaign.workspace_id, longer, refresh.mark)
    except (ConnectionFailed, ServerError):
        if made := _made_before(client, campaign, refresh):
            return made
        raise


def _check_upload(result: contract.UploadResult, sent: int) -> None:
    if result.rejected:
        named = ", ".join(
            f"row {sent + each.row} {each.field} ({each.code})" for each in result.errors[:5]
        )
        raise UploadIncomplete(
            f"The service refused {result.rejected:,} rows that keep the rules as we know them, "
            f"counted among the accepted ones: {named}."
        )


def _settled_size(client: NudgescribeClient, group: GroupRef, expected: int) -> int:
    def look() -> int:
        return client.count_customers(group.workspace_id, group.customer_group_id).total

    size = 0
    for size in poll(look, SETTLE_SECONDS):
        if size >= expected:
            break
    if size != expected:
        raise UploadIncomplete(
            f"Group {group.customer_group_id} has {size:,} customers, not {expected:,}."
        )
    return size
