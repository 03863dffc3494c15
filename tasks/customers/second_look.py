"""The second look at the suppression list, after the review and before the publication."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from prefect import task
from prefect.logging import get_run_logger

from blocks import CrmSource, DataLake, NudgescribeAccount
from blocks.iterators import batched
from blocks.rerun import check_current
from blocks.storage.parquet import text_schema, write_parquet
from blocks.storage.scratch import scratch_folder
from nudgescribe.bases import Frozen
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Status
from nudgescribe.errors import BadRequest, NudgeflowError
from nudgescribe.identifiers import find_common
from nudgescribe.lazy import pl
from tasks.campaigns import RunRef
from tasks.customers.group_check import held_ids, listed_ids
from tasks.customers.left_out import CUSTOMER_ID, suppressed_ids
from tasks.customers.staging import Staged, StagingLost, describe
from tasks.customers.suppression import Suppression, read_suppressed
from tasks.customers.sync import REMOVED_AT_ONCE
from tasks.customers.upload import GroupRef
from tasks.customers.validate import Validated
from tasks.journal.entries import Journal, Series
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED


class SuppressionDiffers(NudgeflowError):
    """The open refresh was begun with another suppression list, or with none."""

    advice = (
        "Nothing was published. End it with the flow abandon-refresh and start anew, or give it "
        "the list that it was begun with; publish-campaign keeps to that one, too."
    )


class SuppressedTooLate(NudgeflowError):
    """Customers who must not be written to can no longer be taken out of the run."""

    advice = (
        "This try has published nothing. Take them out of the run in the platform and "
        "retry this flow run, or end the refresh with the flow abandon-refresh."
    )


class SecondLook(Frozen):
    """The suppressed `identifiers` before the publication, and who of the list's customers has
    `joined` them since the first look: their number, and a file if there are any.
    """

    identifiers: Staged
    joined: int
    joined_ids: Staged | None = None


def check_same_suppression(noted: Suppression | None, given: CrmSource | None) -> None:
    """Raise SuppressionDiffers if a flow run that continues a refresh was given another list."""
    if given and (noted is None or noted.block != given.to_reference()):
        begun = "another suppression list" if noted else "no suppression list"
        raise SuppressionDiffers(
            f"options.suppress is {given.block_slug}; the open refresh was begun with {begun}."
        )


@task(**RETRIED)
def look_again(
    account: NudgescribeAccount,
    group: GroupRef,
    run: RunRef,
    validated: Validated,
    suppression: Suppression,
    lake: DataLake,
    refresh: Refresh,
    *,
    published: bool,
) -> SecondLook:
    """Read the suppression list again, and delete its customers from the run's group.

    Repeated, it reads the list anew and deletes who is still there. Once the refresh has
    `published` the run, they are deleted before that is done again, for its export.

    Raises SuppressedTooLate if somebody else has published the run, or the service does not let
    them go; and the errors of `read_suppressed`.
    """
    journal = Journal(lake.files, refresh.journal)
    journal.check_owner()
    with account.get_client() as client, scratch_folder("the suppression list") as folder:
        suppressed = read_suppressed(suppression.load(), suppression.column, folder)
        number = journal.contents().newest.get(Series.SUPPRESSION, 0) + 1
        path = f"{refresh.staging}/suppressed-{number}.parquet"
        held = _common(held_ids(client, group), suppressed, folder)
        try:
            joined = _common(listed_ids(lake, validated), suppressed, folder)
        except StagingLost:
            joined = held
        look = SecondLook(
            identifiers=describe(suppressed, path),
            joined=len(joined),
            joined_ids=_stage(lake, joined, folder, f"{refresh.staging}/joined-{number}.parquet"),
        )
        lake.files.put(suppressed, path, private=True)
        journal.append(Series.SUPPRESSION, number, look)
        if len(held):
            if not published:
                _refuse_published(client, run, len(held))
            _delete(client, group, run, held)
            _refuse_left(_common(held_ids(client, group), suppressed, folder), run)
    get_run_logger().info("%s customers have joined the suppression list", f"{look.joined:,}")
    return look


def _stage(lake: DataLake, joined: pl.Series, folder: Path, path: str) -> Staged | None:
    if not len(joined):
        return None
    file = folder / "joined.parquet"
    write_parquet(file, text_schema([CUSTOMER_ID]), [joined.to_frame(CUSTOMER_ID)])
    lake.files.put(file, path, private=True)
    return describe(file, path)


def _refuse_published(client: NudgescribeClient, run: RunRef, customers: int) -> None:
    history = client.rerun_history(run.campaign_id)
    check_current(run.campaign_id, history, run.run_number)
    status = next(one.status for one in history if one.run_number == run.run_number)
    if status == Status.PUBLISHED:
        raise SuppressedTooLate(
            f"{customers:,} customers who must not be written to are in run {run.run_number}, "
            "which is published already."
        )


def _delete(client: NudgescribeClient, group: GroupRef, run: RunRef, ids: pl.Series) -> None:
    for some in batched(ids, REMOVED_AT_ONCE):
        try:
            client.delete_customers(group.workspace_id, group.customer_group_id, some)
        except BadRequest as error:
            raise SuppressedTooLate(
                f"{len(ids):,} customers who must not be written to stay in run {run.run_number}: "
                f"{error.problem}"
            ) from None


def _refuse_left(left: pl.Series, run: RunRef) -> None:
    if len(left):
        raise SuppressedTooLate(
            f"{len(left):,} customers who must not be written to are still in the group of run "
            f"{run.run_number} after they were deleted."
        )


def _common(ids: Iterable[pl.DataFrame], suppressed: Path, folder: Path) -> pl.Series:
    with TemporaryDirectory(dir=folder) as own:
        return find_common(ids, suppressed_ids(suppressed), Path(own))
