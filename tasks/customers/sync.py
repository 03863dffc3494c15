"""Synchronisation of a customer group with a list: only the differences are sent."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prefect.assets import materialize
from prefect.logging import get_run_logger
from pydantic import AliasChoices, Field

from blocks import DataLake, NudgescribeAccount
from blocks.iterators import batched
from blocks.storage.parquet import (
    ParquetSink,
    read_batches,
    read_frames,
    text_schema,
    write_parquet,
)
from blocks.storage.scratch import scratch_folder
from nudgescribe.bases import Frozen
from nudgescribe.client import NudgescribeClient
from nudgescribe.fields import column
from nudgescribe.identifiers import Counts, compare
from nudgescribe.lazy import np, npt, pa, pl
from nudgescribe.retry import poll
from tasks.customers import upload
from tasks.customers.fingerprint import content
from tasks.customers.staging import Staged, local_copy
from tasks.customers.upload import GroupRef, UploadIncomplete, send, settled_size
from tasks.journal.entries import Journal, Step
from tasks.journal.history import record_changes
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED

CUSTOMERS_HELD = 10_000
"""Customers of a group in memory at a time."""
REMOVED_AT_ONCE = 1000


class ListDiff(Frozen):
    """The number of customers that a list adds to a group, changes in it, removes from it, and
    leaves unchanged. The aliases are for plans that version 0.1 wrote to lakes.
    """

    added: int
    changed: int
    removed: int = Field(validation_alias=AliasChoices("removed", "gone"))
    unchanged: int = Field(validation_alias=AliasChoices("unchanged", "same"))

    def describe(self) -> str:
        """Return how the group differs from the list; empty if it does not."""
        if not (self.added or self.changed or self.removed):
            return ""
        return (
            f"{self.added:,} customers of the list are missing, {self.changed:,} differ, "
            f"{self.removed:,} are not in the list"
        )


@materialize("nudgescribe://groups", **RETRIED)
def update_customers(
    account: NudgescribeAccount,
    group: GroupRef,
    accepted: Staged,
    key: str,
    lake: DataLake,
    refresh: Refresh,
) -> ListDiff:
    """Make the group's customers those of the list: upsert new and changed ones, delete the rest.

    Who is to be changed is noted before the first call, once: a later try finds fewer of them, and
    in the end none. Raises UploadIncomplete if the service rejects a row or the group differs from
    the list in the end.
    """
    journal = Journal(lake.files, refresh.journal)

    def update() -> ListDiff:
        with (
            account.get_client() as client,
            local_copy(lake, accepted) as listed,
            scratch_folder("the customers to remove") as folder,
        ):
            comparison = _compare(client, group, listed, key, folder)
            diff = comparison.diff

            def note() -> ListDiff:
                record_changes(lake, refresh, read_frames(comparison.changes))
                return diff

            noted = journal.step(Step.CHANGED, ListDiff, note)
            counts = ", ".join(f"{number:,} {change}" for change, number in diff)
            get_run_logger().info("Compared with group %s: %s", group.customer_group_id, counts)
            total = diff.added + diff.changed
            completed = send(client, group, comparison.upserts(listed), total) if total else True
            for ids in comparison.deletions():
                client.delete_customers(group.workspace_id, group.customer_group_id, ids)
            settled_size(client, group, accepted.rows)
            if not completed:
                _settle(client, group, listed, key)
        return noted

    return journal.step(Step.UPLOADED, ListDiff, update)


@dataclass(frozen=True)
class _GroupComparison:
    """A list compared with a group: `upserted` tells of each row of the list whether it is to be
    sent, the file `removed` holds the identifiers to delete, `changes` all that differ.
    """

    diff: ListDiff
    upserted: npt.NDArray[np.bool_]
    removed: Path
    changes: Path

    def upserts(self, listed: Path) -> Iterator[pa.RecordBatch]:
        """Yield the list's new and changed rows in their order, one upload at a time."""
        batches = _filtered(read_batches(listed), self.upserted)
        return _rechunked(batches, upload.ROWS_SENT, upload.BYTES_SENT)

    def deletions(self) -> Iterator[list[str]]:
        """Yield the identifiers to delete, one call at a time."""
        return (ids["id"].to_list() for ids in read_frames(self.removed, REMOVED_AT_ONCE))


@contextmanager
def held_customers(
    client: NudgescribeClient, workspace_id: str, group_id: str, listed: Path
) -> Generator[Path]:
    """Yield a temporary Parquet file of a group's customers, as the service holds them, in text
    columns: those of the list they are to be compared with.
    """
    columns = pl.scan_parquet(listed).collect_schema().names()
    schema = text_schema(columns)
    customers = batched(client.customers(workspace_id, group_id), CUSTOMERS_HELD)
    frames = (
        pl.DataFrame(
            {name: [as_text(customer.profile.get(name)) for customer in batch] for name in columns},
            schema=schema,
        )
        for batch in customers
    )
    with scratch_folder("the group's customers") as folder:
        file = folder / "held.parquet"
        write_parquet(file, schema, frames)
        yield file


def diff_group(client: NudgescribeClient, group: GroupRef, listed: Path, key: str) -> ListDiff:
    """Count how a list differs from the customers of a group."""
    with held_customers(client, group.workspace_id, group.customer_group_id, listed) as held:
        return diff_lists(listed, held, key)


def diff_lists(listed: Path, held: Path, key: str) -> ListDiff:
    """Count how a list differs from the customers that the service holds."""
    return _diff(Counts.of(_shares(listed, held, key)))


def _compare(
    client: NudgescribeClient, group: GroupRef, listed: Path, key: str, folder: Path
) -> _GroupComparison:
    removed, changes = folder / "removed.parquet", folder / "changes.parquet"
    rows = pl.scan_parquet(listed).select(pl.len()).collect().item()
    upserted, counts = np.zeros(rows, np.bool_), Counts()
    with (
        held_customers(client, group.workspace_id, group.customer_group_id, listed) as held,
        ParquetSink(removed, text_schema(["id"])) as sink,
        ParquetSink(changes, text_schema(["customer_id", "change"])) as changes_sink,
    ):
        for share in _shares(listed, held, key):
            counts.add(share)
            changed = share.filter(pl.col("change").is_in(["added", "changed"]))
            upserted[changed["row"].to_numpy()] = True
            sink.write(share.filter(pl.col("change") == "removed").select("id"))
            differ = share.filter(pl.col("change") != "unchanged")
            changes_sink.write(differ.select(pl.col("id").alias("customer_id"), "change"))
    return _GroupComparison(_diff(counts), upserted, removed, changes)


def _shares(listed: Path, held: Path, key: str) -> Iterator[pl.DataFrame]:
    names = pl.scan_parquet(listed).collect_schema().names()

    def contents(file: Path) -> Iterator[pl.DataFrame]:
        compared = column(key).alias("id"), content(names).alias("content")
        return (frame.select(compared) for frame in read_frames(file))

    with scratch_folder("the comparison of two lists") as folder:
        yield from compare(contents(held), contents(listed), folder)


def _diff(counts: Counts) -> ListDiff:
    names = ("added", "changed", "removed", "unchanged")
    return ListDiff(**{name: counts[name] for name in names})


def _filtered(
    batches: Iterable[pa.RecordBatch], mask: npt.NDArray[np.bool_]
) -> Iterator[pa.RecordBatch]:
    first = 0
    for batch in batches:
        yield batch.filter(pa.array(mask[first : first + batch.num_rows]))
        first += batch.num_rows


def _rechunked(batches: Iterable[pa.RecordBatch], rows: int, size: int) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in batches of `rows`, or of fewer once they have about `size` bytes."""
    pending: list[pa.RecordBatch] = []
    for batch in batches:
        pending.append(batch)
        while sum(batch.num_rows for batch in pending) >= rows:
            joined = pa.concat_batches(pending)
            yield joined.slice(0, rows)
            pending = [joined.slice(rows)]
        if sum(batch.nbytes for batch in pending) >= size:
            yield pa.concat_batches(pending)
            pending = []
    if any(batch.num_rows for batch in pending):
        yield pa.concat_batches(pending)


def _settle(client: NudgescribeClient, group: GroupRef, listed: Path, key: str) -> None:
    """Wait for uploads that the service processes in the background. Raises UploadIncomplete."""
    difference = ""
    for diff in poll(partial(diff_group, client, group, listed, key), upload.SETTLE_SECONDS):
        difference = diff.describe()
        if not difference:
            return
    raise UploadIncomplete(
        f"Group {group.customer_group_id} still differs from the list after "
        f"{upload.SETTLE_SECONDS / 60:g} minutes: {difference}."
    )


def as_text(value: str | int | float | None) -> str | None:
    """Return a value of a profile as a list has it."""
    return None if value is None else str(value)
