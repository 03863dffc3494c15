"""The customer group of a refresh: made once, filled with the accepted customers."""

from collections.abc import Iterable

import polars as pl
from prefect import task
from prefect.assets import materialize
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict

from blocks import DataLake, NudgescribeAccount
from blocks.iterators import prefetch
from nudgescribe import contract, rfc4180
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Text
from nudgescribe.errors import BadRequest, ConnectionFailed, NudgeflowError, ServerError
from nudgescribe.polling import poll
from tasks.campaigns import CampaignRef, Refresh, refuse_busy
from tasks.customers.staging import Staged, batches, local_copy
from tasks.policies import ONCE, READ
from tasks.ui.console import Line

ROWS_SENT = 20_000
"""Rows of one upload."""
SETTLE_SECONDS = 1800.0
"""How long an upload the service works off in the background may take."""


class GroupRef(BaseModel):
    """A customer group, with the `size` it had when it was looked up."""

    model_config = ConfigDict(frozen=True)

    workspace_id: str
    customer_group_id: str
    name: str
    size: int


class UploadIncomplete(NudgeflowError):
    advice = "No rerun was started. Retry this flow run; the upload is repeated harmlessly."


@task(**ONCE)
def create_group(
    account: NudgescribeAccount,
    campaign: CampaignRef,
    template: str,
    refresh: Refresh,
    reuse: bool = False,
) -> GroupRef:
    """The customer group of this refresh: the one it has already; to `reuse`, the one of this name;
    or a new one. Raises GroupBusy.
    """
    workspace_id, name = campaign.workspace_id, refresh.group_name(template, campaign.name)
    with account.get_client() as client:
        group = _marked(client, workspace_id, refresh.marks)
        mark = refresh.marks[reuse]
        if group is None and reuse and (there := _named(client, workspace_id, name)):
            refuse_busy(client, {there.customer_group_id}, name)
            marked = contract.UpdateGroup(
                customer_group_id=there.customer_group_id, description=mark
            )
            group = client.update_group(marked)
        if group is None:
            # Should another refresh of the same minute have the name, ours gets the short id.
            longer = f"{name} ({refresh.short})"
            group = _create(client, workspace_id, name, mark, longer)
    return _reference(group)


@task(**READ)
def find_group(account: NudgescribeAccount, workspace_id: str, name: str) -> GroupRef | None:
    """The customer group of this name, if there is one. Raises NotFound, GroupBusy."""
    with account.get_client() as client:
        group = _named(client, workspace_id, name)
        if group is None:
            return None
        refuse_busy(client, {group.customer_group_id}, name)
    return _reference(group)


@task(**READ)
def make_group(account: NudgescribeAccount, workspace_id: str, name: str) -> GroupRef:
    """The customer group of this name, new unless an earlier try has made it."""
    with account.get_client() as client:
        group = _named(client, workspace_id, name) or client.create_group(workspace_id, name)
    return _reference(group)


@materialize("nudgescribe://groups", **ONCE)
def upload_customers(
    account: NudgescribeAccount, group: GroupRef, accepted: Staged, lake: DataLake
) -> int:
    """Uploads the accepted rows in chunks and returns the group's size, which equals theirs.

    The service upserts by identifier, so a repeated upload changes nothing.
    Raises UploadIncomplete if the service refuses a row or ends up with another number.
    """
    with (
        account.get_client() as client,
        local_copy(lake, accepted) as source,
    ):
        send(client, group, batches(pl.scan_parquet(source), ROWS_SENT), accepted.rows)
        return settled_size(client, group, accepted.rows)


def send(
    client: NudgescribeClient, group: GroupRef, customers: Iterable[pl.DataFrame], total: int
) -> bool:
    """Upserts customers, and returns whether the service has already worked off all of them.

    Raises UploadIncomplete if it refuses a row.
    """
    sent, done = 0, True
    with Line("Uploading customers", total) as line:
        for rows, csv in prefetch((frame.height, rfc4180.write(frame)) for frame in customers):
            result = client.upload_customers(group.workspace_id, group.customer_group_id, csv)
            _check_upload(result, sent)
            sent += rows
            done = done and result.status == contract.UPLOAD_COMPLETED
            get_run_logger().info("Uploaded %s of %s customers", f"{sent:,}", f"{total:,}")
            line.show(f"Uploading customers, {sent:,} of {total:,}", sent)
    return done


def _marked(
    client: NudgescribeClient, workspace_id: str, marks: tuple[str, ...]
) -> contract.CustomerGroup | None:
    groups = client.list_groups(workspace_id)
    return next((group for group in groups if group.description in marks), None)


def _named(
    client: NudgescribeClient, workspace_id: str, name: str
) -> contract.CustomerGroup | None:
    return next((group for group in client.list_groups(workspace_id) if group.name == name), None)


def _create(
    client: NudgescribeClient, workspace_id: str, name: str, mark: str, longer: str
) -> contract.CustomerGroup:
    try:
        return client.create_group(workspace_id, name, mark)
    except BadRequest as error:
        if Text.GROUP_EXISTS not in error.problem:
            raise
        return client.create_group(workspace_id, longer, mark)
    except (ConnectionFailed, ServerError):
        if made := _marked(client, workspace_id, (mark,)):
            return made
        raise


def _reference(group: contract.CustomerGroup) -> GroupRef:
    get_run_logger().info("Customer group %s: %s", group.customer_group_id, group.name)
    return GroupRef(
        workspace_id=group.workspace_id,
        customer_group_id=group.customer_group_id,
        name=group.name,
        size=group.customer_count,
    )


def _check_upload(result: contract.UploadResult, sent: int) -> None:
    if result.rejected:
        named = ", ".join(
            f"row {sent + each.row} {each.field} ({each.code})" for each in result.errors[:5]
        )
        raise UploadIncomplete(
            f"The service refused {result.rejected:,} rows that keep the rules as we know them, "
            f"counted among the accepted ones: {named}."
        )


def settled_size(client: NudgescribeClient, group: GroupRef, expected: int) -> int:
    """The group's size as soon as it is the expected one. Raises UploadIncomplete."""

    def look() -> int:
        return client.count_customers(group.workspace_id, group.customer_group_id).total

    size = 0
    for size in poll(look, SETTLE_SECONDS):
        if size >= expected:
            break
    if size != expected:
        late = f", after {SETTLE_SECONDS / 60:g} minutes" if size < expected else ""
        raise UploadIncomplete(
            f"Group {group.customer_group_id} has {size:,} customers, not {expected:,}{late}."
        )
    return size
