"""The group of a refresh while others may change it: it must hold nobody who is not in the list."""

from __future__ import annotations

from collections.abc import Iterator

from prefect import task
from prefect.logging import get_run_logger

from blocks import DataLake, NudgescribeAccount
from blocks.storage.parquet import read_frames
from blocks.storage.scratch import scratch_folder
from nudgescribe.client import NudgescribeClient
from nudgescribe.errors import NudgeflowError
from nudgescribe.identifiers import Counts, compare, identities
from nudgescribe.lazy import pl
from tasks.customers.staging import StagingLost, local_copy
from tasks.customers.sync import diff_group
from tasks.customers.upload import GroupRef, refuse_held
from tasks.customers.validate import Validated
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED


class GroupChanged(NudgeflowError):
    """The group no longer holds what was uploaded to it."""

    advice = (
        "Make the group what it was and retry this flow run, or end the refresh with the flow "
        "abandon-refresh and start a new one."
    )


@task(**RETRIED)
def check_content(
    account: NudgescribeAccount,
    group: GroupRef,
    validated: Validated,
    lake: DataLake,
    refresh: Refresh,
) -> None:
    """Raise GroupChanged unless the group holds just the list, GroupBusy if another refresh has
    marked it since; before a rerun begins on it.
    """
    with account.get_client() as client, local_copy(lake, validated.accepted) as listed:
        refuse_held(client, group, refresh)
        difference = diff_group(client, group, listed, validated.key).describe()
    if difference:
        raise GroupChanged(f"Group '{group.name}' has changed since the upload: {difference}.")


@task(**RETRIED)
def check_identifiers(
    account: NudgescribeAccount, group: GroupRef, validated: Validated, lake: DataLake
) -> None:
    """Raise GroupChanged if somebody is in the group who is not in the list, before the run is
    published; or if the list is gone and the group has grown or was reused. Raises StagingChanged.

    Customers who have left it are told in the log: their messages are not exported.
    """
    rows = validated.accepted.rows
    with account.get_client() as client:
        total = client.count_customers(group.workspace_id, group.customer_group_id).total
        try:
            counts = _compare(client, group, validated, lake)
        except StagingLost as error:
            if group.reused or total > rows:
                raise GroupChanged(
                    f"Group '{group.name}' has {total:,} customers, the list had {rows:,}, and "
                    f"they cannot be compared: {error.problem}"
                ) from None
            get_run_logger().warning("%s The group is not compared with it.", error.problem)
            return
    missing, foreign = counts["added"], counts["removed"]
    if foreign:
        raise GroupChanged(
            f"Group '{group.name}' has changed since the upload: {foreign:,} of its {total:,} "
            f"customers are not in the list, {missing:,} of the list are missing."
        )
    if missing:
        get_run_logger().warning(
            "%s of the list's %s customers were removed from the group since the upload",
            f"{missing:,}",
            f"{rows:,}",
        )


def held_ids(client: NudgescribeClient, group: GroupRef) -> Iterator[pl.DataFrame]:
    """Yield the identifiers of the group's customers, as the service holds them now."""
    pages = client.customer_ids(group.workspace_id, group.customer_group_id)
    return (identities(pl.Series(page, dtype=pl.String())) for page in pages)


def listed_ids(lake: DataLake, validated: Validated) -> Iterator[pl.DataFrame]:
    """Yield the identifiers of the list. Raises StagingLost."""
    with local_copy(lake, validated.accepted) as listed:
        for frame in read_frames(listed, columns=[validated.key]):
            yield identities(frame.to_series())


def _compare(
    client: NudgescribeClient, group: GroupRef, validated: Validated, lake: DataLake
) -> Counts:
    with scratch_folder("the group's identifiers") as folder:
        return Counts.of(compare(held_ids(client, group), listed_ids(lake, validated), folder))
