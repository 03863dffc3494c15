"""The customer group of a refresh: found or created once, filled with the accepted customers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from prefect import task
from prefect.assets import materialize
from prefect.logging import get_run_logger

from blocks import DataLake, NudgescribeAccount
from blocks.iterators import prefetch
from blocks.storage.errors import TooNew
from blocks.storage.parquet import read_batches
from nudgescribe import contract, rfc4180
from nudgescribe.bases import Frozen
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Text
from nudgescribe.errors import (
    BadRequest,
    ConnectionFailed,
    ContractMismatch,
    NudgeflowError,
    ServerError,
    TooLarge,
)
from nudgescribe.lazy import pa
from nudgescribe.retry import poll
from tasks.campaigns import CampaignRef, GroupBusy, refuse_busy
from tasks.customers.staging import Staged, local_copy
from tasks.group_names import group_name
from tasks.journal.entries import Journal, JournalDamaged, Step
from tasks.journal.refresh import Claimed, Holder, Refresh
from tasks.policies import RETRIED
from tasks.ui.console import StatusLine

ROWS_SENT = 20_000
"""Most rows of one upload."""
BYTES_SENT = 8 * 1024 * 1024
"""Most bytes of one upload of more than one row."""
SETTLE_SECONDS = 1800.0
"""Maximum wait for uploads that the service processes in the background."""


class GroupRef(Frozen):
    """A customer group, with the `size` it had when it was looked up.

    `held_by` is the refresh that still needs it as it is. A group that was there before its refresh
    is `reused`, and had the `description`.
    """

    workspace_id: str
    customer_group_id: str
    name: str
    size: int
    held_by: str | None = None
    reused: bool = False
    description: str | None = None


class UploadIncomplete(NudgeflowError):
    """The group does not hold the list after its upload."""

    advice = "No rerun was started. Retry this flow run; the upload is repeated harmlessly."


class RowTooLarge(NudgeflowError):
    """The service takes no upload of this one row."""

    advice = "No rerun was started. Shorten the row's values, then start a new refresh."


class Uploaded(Frozen):
    """The size of a group once all customers of a list are in it."""

    size: int


@task(**RETRIED)
def create_group(
    account: NudgescribeAccount,
    campaign: CampaignRef,
    template: str,
    lake: DataLake,
    refresh: Refresh,
    reuse: bool = False,
) -> GroupRef:
    """Return the customer group of this refresh: the one it has already; with `reuse`, the one of
    this name; or a new one. Raises GroupBusy.
    """
    workspace_id, called = campaign.workspace_id, (template, campaign.name, refresh.started)
    name = group_name(*called)

    def find_or_create() -> GroupRef:
        with account.get_client() as client:
            group = _find(client, workspace_id, refresh.owns, refresh.markers)
            marker = refresh.marker(reused=reuse)
            existing = None
            if group is None and reuse and (existing := _named(client, workspace_id, name)):
                if holder := _holder(lake, existing):
                    raise GroupBusy(f"Group '{name}' is held by refresh {holder}.")
                refuse_busy(client, {existing.customer_group_id}, name)
                group = _mark(client, existing, refresh)
            if group is None:
                # Should another refresh of the same minute have the name, ours gets the short id.
                longer = group_name(*called, suffix=f" ({refresh.short})")
                group = _create(client, workspace_id, name, marker, longer)
            # Once an earlier try has marked it, its own description is lost.
            before = existing.description if existing and not Holder.of(existing) else None
            reused = ", of a group reused" in (group.description or "")
            reference = _reference(client, group)
        return reference.model_copy(update={"reused": reused, "description": before})

    return Journal(lake.files, refresh.journal).step(Step.GROUPED, GroupRef, find_or_create)


@task(**RETRIED)
def find_group(
    account: NudgescribeAccount, workspace_id: str, name: str, lake: DataLake
) -> GroupRef | None:
    """Return the customer group of this name, if there is one. Raises NotFound; GroupBusy if a
    campaign's unpublished run that is none of ours is on it.
    """
    with account.get_client() as client:
        group = _named(client, workspace_id, name)
        if group is None:
            return None
        holder = _holder(lake, group)
        if holder is None:
            refuse_busy(client, {group.customer_group_id}, name)
        return _reference(client, group).model_copy(update={"held_by": holder})


@task(**RETRIED)
def release_group(account: NudgescribeAccount, group: GroupRef, refresh: Refresh) -> None:
    """Take this refresh's mark off a group that it has reused."""
    with account.get_client() as client:
        now = _find(client, group.workspace_id, refresh.owns, refresh.markers)
        if now and now.customer_group_id == group.customer_group_id:
            description = group.description or f"Filled by Nudgeflow on {refresh.started:%Y-%m-%d}."
            client.update_group(
                contract.UpdateGroup(
                    customer_group_id=now.customer_group_id, description=description
                )
            )


@task(**RETRIED)
def find_or_create_group(account: NudgescribeAccount, workspace_id: str, name: str) -> GroupRef:
    """Return the customer group of this name, created unless an earlier try has created it."""
    with account.get_client() as client:
        group = _named(client, workspace_id, name) or client.create_group(workspace_id, name)
        return _reference(client, group)


@materialize("nudgescribe://groups", **RETRIED)
def upload_customers(
    account: NudgescribeAccount,
    group: GroupRef,
    accepted: Staged,
    lake: DataLake,
    refresh: Refresh,
) -> Uploaded:
    """Upload the accepted rows in chunks; return the group's size, which equals their number.

    The service upserts by identifier, so a repeated upload changes nothing.
    Raises UploadIncomplete if the service rejects a row or the sizes differ in the end,
    RowTooLarge.
    """

    def upload() -> Uploaded:
        with account.get_client() as client, local_copy(lake, accepted) as source:
            send(client, group, read_batches(source, ROWS_SENT), accepted.rows)
            return Uploaded(size=settled_size(client, group, accepted.rows))

    return Journal(lake.files, refresh.journal).step(Step.UPLOADED, Uploaded, upload)


def send(
    client: NudgescribeClient, group: GroupRef, customers: Iterable[pa.RecordBatch], total: int
) -> bool:
    """Upsert customers, and return whether the service has processed all uploads already.

    Raises UploadIncomplete if the service rejects a row, RowTooLarge.
    """
    completed = True
    with StatusLine("Uploading customers", total) as line:
        for first, rows, result in _uploads(client, group, customers):
            _check_upload(result, first)
            sent = first + rows
            completed = completed and result.status == contract.UPLOAD_COMPLETED
            get_run_logger().info("Uploaded %s of %s customers", f"{sent:,}", f"{total:,}")
            line.update(f"Uploading customers, {sent:,} of {total:,}", sent)
    return completed


def _uploads(
    client: NudgescribeClient, group: GroupRef, customers: Iterable[pa.RecordBatch]
) -> Iterator[tuple[int, int, contract.UploadResult]]:
    """Upload customers in their order; yield for each upload the number of rows sent before it,
    the number of its rows, and its result.

    An upload has at most BYTES_SENT, and less once the service has refused one as too large.
    Raises RowTooLarge.
    """
    sent, limit = 0, BYTES_SENT
    for chunk in prefetch(with_csv(customers)):
        left = [chunk]
        while left:
            batch, csv = left.pop()
            result = None
            if len(csv) <= limit or batch.num_rows == 1:
                try:
                    result = client.upload_customers(
                        group.workspace_id, group.customer_group_id, csv
                    )
                except TooLarge as error:
                    if batch.num_rows == 1:
                        raise RowTooLarge(f"Accepted row {sent + 1:,}: {error.problem}") from None
                    limit = len(csv) // 2
            if result:
                yield sent, batch.num_rows, result
                sent += batch.num_rows
            else:
                half = batch.num_rows // 2
                halves = batch.slice(half), batch.slice(0, half)
                left += [(each, rfc4180.write(each)) for each in halves]


def with_csv(customers: Iterable[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, bytes]]:
    """Yield customers with the CSV of their upload; a thread reads ahead."""
    for batch in prefetch(iter(customers)):
        yield batch, rfc4180.write(batch)


def settled_size(client: NudgescribeClient, group: GroupRef, expected: int) -> int:
    """Wait for the group to reach the expected size, and return it.

    Raises UploadIncomplete if the group is larger, or still smaller after SETTLE_SECONDS.
    """

    def count() -> int:
        return client.count_customers(group.workspace_id, group.customer_group_id).total

    size = 0
    for size in poll(count, SETTLE_SECONDS):
        if size >= expected:
            break
    if size != expected:
        late = f", after {SETTLE_SECONDS / 60:g} minutes" if size < expected else ""
        raise UploadIncomplete(
            f"Group {group.customer_group_id} has {size:,} customers, not {expected:,}{late}."
        )
    return size


@task(**RETRIED)
def release_held_group(account: NudgescribeAccount, lake: DataLake, refresh: Refresh) -> None:
    """Take the mark of a refresh off the group that it has reused, if it has got that far."""
    if not refresh.journal:
        return  # version 0.1 has left it
    journal = Journal(lake.files, refresh.journal)
    group = journal.find(Step.GROUPED, GroupRef)
    if group is None and (campaign := journal.find(Step.FOUND, CampaignRef)):
        group = _marked(account, campaign.workspace_id, refresh)
    if group and group.reused:
        release_group.fn(account, group, refresh)


def _marked(account: NudgescribeAccount, workspace_id: str, refresh: Refresh) -> GroupRef | None:
    """Return the group that the refresh has marked as reused, whether or not it has noted so."""
    with account.get_client() as client:
        group = _find(client, workspace_id, refresh.owns, refresh.markers)
        holder = Holder.of(group) if group else None
        if group is None or holder is None:
            return None
        return _reference(client, group).model_copy(update={"reused": bool(holder.journal)})


def refuse_held(client: NudgescribeClient, group: GroupRef, refresh: Refresh) -> None:
    """Raise GroupBusy if the group carries the mark of another refresh: it was marked at the same
    time, and the later mark counts.
    """
    groups = client.list_groups(group.workspace_id)
    now = next((one for one in groups if one.customer_group_id == group.customer_group_id), None)
    holder = Holder.of(now) if now else None
    if holder and holder.refresh != refresh.id:
        raise GroupBusy(f"Group '{group.name}' is held by refresh {holder.refresh}.")


def _mark(
    client: NudgescribeClient, group: contract.CustomerGroup, refresh: Refresh
) -> contract.CustomerGroup:
    """Mark a group as reused by the refresh. Raises GroupBusy if another one was faster."""
    marked = client.update_group(
        contract.UpdateGroup(
            customer_group_id=group.customer_group_id, description=refresh.marker(reused=True)
        )
    )
    refuse_held(client, _reference(client, marked), refresh)
    return marked


def _holder(lake: DataLake, group: contract.CustomerGroup) -> str | None:
    """Return the id of the refresh that holds a reused group; None once its journal has ended.

    A refresh holds it until its mark is taken off if its journal is not in this lake, or cannot be
    read: another lake may have a journal of this path, of another refresh.
    """
    holder = Holder.of(group)
    if holder is None or not holder.journal:
        return None
    journal = Journal(lake.files, holder.journal)
    with suppress(JournalDamaged, TooNew):
        claimed = journal.find(Step.CLAIMED, Claimed)
        is_here = claimed is not None and claimed.refresh.id == holder.refresh
        if is_here and Step.ENDED in journal.contents().steps:
            return None
    return holder.refresh


def _find(
    client: NudgescribeClient,
    workspace_id: str,
    matches: Callable[[contract.CustomerGroup], bool],
    texts: list[str],
) -> contract.CustomerGroup | None:
    """Return the group that matches. Raises ContractMismatch if it may be one that does not fit the
    contract, which has one of the `texts` then.
    """
    groups = client.list_groups(workspace_id)
    group = next(filter(matches, groups), None)
    if group is None:
        groups.check(f"Group '{texts[0]}'", texts)
    return group


def _named(
    client: NudgescribeClient, workspace_id: str, name: str
) -> contract.CustomerGroup | None:
    return _find(client, workspace_id, lambda group: group.name == name, [name])


def _create(
    client: NudgescribeClient, workspace_id: str, name: str, marker: str, longer: str
) -> contract.CustomerGroup:
    try:
        return client.create_group(workspace_id, name, marker)
    except BadRequest as error:
        if Text.GROUP_EXISTS not in error.problem:
            raise
        return client.create_group(workspace_id, longer, marker)
    except (ConnectionFailed, ServerError, ContractMismatch):
        created = _find(client, workspace_id, lambda one: one.description == marker, [marker])
        if created is None:
            raise
        return created


def _reference(client: NudgescribeClient, group: contract.CustomerGroup) -> GroupRef:
    size, id_ = group.customer_count, group.customer_group_id
    if size is None:
        size = client.count_customers(group.workspace_id, id_).total
    get_run_logger().info("Customer group %s: %s", id_, group.name)
    return GroupRef(
        workspace_id=group.workspace_id,
        customer_group_id=id_,
        name=group.name,
        size=size,
    )


def _check_upload(result: contract.UploadResult, sent: int) -> None:
    if result.rejected:
        first = ", ".join(
            f"row {sent + error.row} {error.field} ({error.code})" for error in result.errors[:5]
        )
        raise UploadIncomplete(
            f"The service rejected {result.rejected:,} rows that keep the rules as we know them: "
            f"{first}."
        )
