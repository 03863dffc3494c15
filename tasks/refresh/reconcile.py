"""Reconciliation of customer group, list and lake: all three hold the same customers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from prefect import task
from prefect.logging import get_run_logger

from blocks import DataLake, NudgescribeAccount
from blocks.storage.history import write_changes
from blocks.storage.parquet import read_frames as parquet_frames
from blocks.storage.reader import read_frames
from blocks.storage.scratch import scratch_folder
from nudgescribe.errors import NudgeflowError, counted
from nudgescribe.identifiers import Counts, compare, find_common, identities
from nudgescribe.lazy import pl
from tasks.customers.group_check import held_ids, listed_ids
from tasks.customers.left_out import suppressed_ids
from tasks.customers.second_look import SecondLook
from tasks.customers.staging import StagingLost, local_copy
from tasks.customers.upload import GroupRef
from tasks.customers.validate import Validated
from tasks.export.download import ExportRef
from tasks.export.ledger import Ledger
from tasks.export.verify import ID, customer_ids
from tasks.journal.history import as_changes, changes_file
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED


class NotReconciled(NudgeflowError):
    """Group, list and lake do not hold the same customers."""

    advice = (
        "The run was not made visible. Retry this flow run to publish and fetch it again; if it "
        "stays, end the refresh with the flow abandon-refresh."
    )


class SuppressedInExport(NudgeflowError):
    """A published run has messages for customers who must not be written to."""

    advice = (
        "They were published: keep them from being sent. The run was not made visible in the lake "
        "by this flow run. Retry it to publish and fetch the run again; if it stays, end the "
        "refresh with the flow abandon-refresh."
    )


@task(**RETRIED)
def reconcile(
    account: NudgescribeAccount,
    group: GroupRef,
    export: ExportRef,
    validated: Validated,
    lake: DataLake,
) -> int:
    """Check that group, list and lake hold the same customers, each exactly once, before the run
    is made visible; return how many of the list have no message since they were removed from
    the group.

    Without the list, which lake-retention may have removed, only group and lake are compared.
    Raises NotReconciled with the numbers, StagingChanged.
    """
    if export.done:
        return _erased_before(lake, export, validated)
    ledger = Ledger(lake.files, export.staging)
    in_lake = partial(_ids_in_lake, lake, export, ledger)
    with account.get_client() as client, scratch_folder("a reconciliation") as folder:
        total = client.count_customers(group.workspace_id, group.customer_group_id).total
        try:
            counts, than = _compare(listed_ids(lake, validated), in_lake(), folder), "list"
        except StagingLost as error:
            get_run_logger().warning("%s The lake is compared with the group.", error.problem)
            counts, than = _compare(held_ids(client, group), in_lake(), folder), "group"
        rows = counts.total() - counts["removed"]
        erased = counts["removed"] if than == "list" else 0
        # Those who were erased from the lake meanwhile may still be in the group.
        left_out = sum(page.erased for batch in ledger.batches() for page in batch.pages)
        wrong = (
            rows != counts["unchanged"]
            or not rows <= total <= rows + left_out
            or counts["removed"] > max(erased, left_out)
        )
        if erased and not wrong:
            # As many were removed from the group as have no message: are they the same ones?
            counts = _compare(held_ids(client, group), in_lake(), folder)
            wrong = counts["unchanged"] != counts.total() - counts["removed"]
            wrong = wrong or counts["removed"] > left_out
            than = "group"
    if wrong:
        ledger.clear()
        raise _not_reconciled(total, rows, counts, than)
    get_run_logger().info("Group, list and lake agree on %s customers", f"{total:,}")
    return erased


@task(**RETRIED)
def check_suppressed(export: ExportRef, look: SecondLook, lake: DataLake, refresh: Refresh) -> None:
    """Prove that the fetched run has nobody who was suppressed before its publication, and write to
    the history who of its list was taken out for that. A run that has somebody is fetched anew by a
    retry.

    Raises SuppressedInExport with the number, StagingLost, StagingChanged.
    """
    with local_copy(lake, look.identifiers) as file, scratch_folder("a proof") as folder:
        found = len(find_common(_exported_ids(lake, export), suppressed_ids(file), folder))
    if found:
        Ledger(lake.files, export.staging).clear()
        raise SuppressedInExport(
            f"{export.name} has messages for {counted(found, 'customer')} who must not be written "
            "to, though they were deleted from its group before the publication."
        )
    path = changes_file(refresh, "since")
    if look.joined_ids is None:
        lake.files.remove(path)  # of an earlier look, when others had joined
        return
    with local_copy(lake, look.joined_ids) as file:
        joined = as_changes(lake, parquet_frames(file), "suppressed_since")
        write_changes(lake.files, path, refresh.id, joined)


def _exported_ids(lake: DataLake, export: ExportRef) -> Iterator[pl.DataFrame]:
    manifest = lake.manifest(export.campaign_id, export.run_number) if export.done else None
    if manifest:
        return (identities(frame[ID]) for frame in read_frames(lake.files, manifest))
    return _ids_in_lake(lake, export, Ledger(lake.files, export.staging))


def _erased_before(lake: DataLake, export: ExportRef, validated: Validated) -> int:
    """Return what an earlier try, which has compared them, may not have noted."""
    manifest = lake.manifest(export.campaign_id, export.run_number)
    return max(0, validated.accepted.rows - manifest.rows) if manifest else 0


def _not_reconciled(total: int, rows: int, counts: Counts, than: str) -> NotReconciled:
    return NotReconciled(
        f"The group has {counted(total, 'customer')}, the lake holds {counted(rows, 'row')}: "
        f"{counts['removed']:,} customers are missing, {counts['added']:,} are not in the {than}, "
        f"{counts['repeated']:,} are repeated."
    )


def _compare(before: Iterator[pl.DataFrame], after: Iterator[pl.DataFrame], folder: Path) -> Counts:
    with TemporaryDirectory(dir=folder) as own:
        return Counts.of(compare(before, after, Path(own)))


def _ids_in_lake(lake: DataLake, export: ExportRef, ledger: Ledger) -> Iterator[pl.DataFrame]:
    return (identities(ids) for _, ids in customer_ids(lake, export, ledger.batches()))
