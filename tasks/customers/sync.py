"""A group brought to a list by what differs between them, and by nothing else."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from prefect.assets import materialize
from prefect.logging import get_run_logger
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from blocks import DataLake, NudgescribeAccount
from blocks.iterators import batched
from blocks.storage.parquet import ParquetSink, text_schema, write_parquet
from blocks.storage.scratch import scratch_folder
from nudgescribe.client import NudgescribeClient
from nudgescribe.fields import column
from nudgescribe.identifiers import Counts, compare
from nudgescribe.polling import poll
from tasks.customers import upload
from tasks.customers.fingerprint import content
from tasks.customers.staging import Staged, batches, local_copy
from tasks.customers.upload import GroupRef, UploadIncomplete, send, settled_size
from tasks.policies import ONCE

CUSTOMERS_HELD = 10_000
"""Customers of a group in memory at a time."""
ROWS_COMPARED = 50_000
REMOVED_AT_ONCE = 1000


class ListDiff(BaseModel):
    """How many customers a list adds to a group, changes in it, removes from it, leaves unchanged.

    Plans of version 0.1 lie in lakes with the names of that time.
    """

    model_config = ConfigDict(frozen=True)

    added: int
    changed: int
    removed: int = Field(validation_alias=AliasChoices("removed", "gone"))
    unchanged: int = Field(validation_alias=AliasChoices("unchanged", "same"))


@materialize("nudgescribe://groups", **ONCE)
def update_customers(
    account: NudgescribeAccount, group: GroupRef, accepted: Staged, key: str, lake: DataLake
) -> ListDiff:
    """Make the group's customers those of the list: upsert new and changed ones, delete the rest.

    Repeated, it finds nothing to do. Raises UploadIncomplete if the service refuses a row or the
    group does not become the list.
    """
    with (
        account.get_client() as client,
        local_copy(lake, accepted) as listed,
        scratch_folder("what the service holds") as folder,
    ):
        found = _compared(client, group, listed, key, folder)
        diff = found.diff
        get_run_logger().info("Compared with group %s: %s", group.customer_group_id, diff)
        total = diff.added + diff.changed
        done = send(client, group, found.to_send(listed), total) if total else True
        for ids in found.to_delete():
            client.delete_customers(group.workspace_id, group.customer_group_id, ids)
        settled_size(client, group, accepted.rows)
        if not done:
            _settle(client, group, listed, key)
    return diff


@dataclass(frozen=True)
class _Compared:
    """A list compared with a group: `sent` says of each row of the list whether it is to be sent,
    the file `removed` has the identifiers that are to be deleted.
    """

    diff: ListDiff
    sent: NDArray[np.bool_]
    removed: Path

    def to_send(self, listed: Path) -> Iterator[pl.DataFrame]:
        """The list's new and changed rows, in its order, as many at a time as one upload takes."""
        chosen = _chosen(batches(pl.scan_parquet(listed), upload.ROWS_SENT), self.sent)
        return _rechunked(chosen, upload.ROWS_SENT)

    def to_delete(self) -> Iterator[list[str]]:
        for some in batches(pl.scan_parquet(self.removed), REMOVED_AT_ONCE):
            for ids in some.iter_slices(REMOVED_AT_ONCE):
                yield ids["id"].to_list()


def held_customers(
    client: NudgescribeClient, workspace_id: str, group_id: str, listed: Path, file: Path
) -> None:
    """Write a group's customers, as the service holds them, to a Parquet file of texts.

    It has the columns of the list they are to be compared with.
    """
    columns = pl.scan_parquet(listed).collect_schema().names()
    schema = text_schema(columns)
    customers = batched(client.customers(workspace_id, group_id), CUSTOMERS_HELD)
    frames = (
        pl.DataFrame(
            {name: [_text(customer.profile.get(name)) for customer in some] for name in columns},
            schema=schema,
        )
        for some in customers
    )
    write_parquet(file, schema, frames)


def diff_lists(listed: Path, held: Path, key: str) -> ListDiff:
    """Count what a list changes in what the service holds."""
    counts = Counts()
    for share in _shares(listed, held, key):
        counts.add(share)
    return _diff(counts)


def _compared(
    client: NudgescribeClient, group: GroupRef, listed: Path, key: str, folder: Path
) -> _Compared:
    held, removed = folder / "held.parquet", folder / "removed.parquet"
    held_customers(client, group.workspace_id, group.customer_group_id, listed, held)
    rows = pl.scan_parquet(listed).select(pl.len()).collect().item()
    sent, counts = np.zeros(rows, np.bool_), Counts()
    with ParquetSink(removed, pl.Schema({"id": pl.String()})) as sink:
        for share in _shares(listed, held, key):
            counts.add(share)
            changed = share.filter(pl.col("change").is_in(["added", "changed"]))
            sent[changed["row"].to_numpy()] = True
            sink.write(share.filter(pl.col("change") == "removed").select("id"))
    return _Compared(_diff(counts), sent, removed)


def _shares(listed: Path, held: Path, key: str) -> Iterator[pl.DataFrame]:
    names = pl.scan_parquet(listed).collect_schema().names()

    def contents(file: Path) -> Iterator[pl.DataFrame]:
        rows = pl.scan_parquet(file).select(
            column(key).alias("id"), content(names).alias("content")
        )
        return batches(rows, ROWS_COMPARED)

    with scratch_folder("the comparison of two lists") as folder:
        yield from compare(contents(held), contents(listed), folder)


def _diff(counts: Counts) -> ListDiff:
    names = ("added", "changed", "removed", "unchanged")
    return ListDiff(**{name: counts[name] for name in names})


def _chosen(frames: Iterable[pl.DataFrame], mask: NDArray[np.bool_]) -> Iterator[pl.DataFrame]:
    first = 0
    for frame in frames:
        yield frame.filter(pl.Series(mask[first : first + frame.height]))
        first += frame.height


def _rechunked(frames: Iterable[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """The same rows in frames of `rows`; the last may have fewer."""
    held: list[pl.DataFrame] = []
    for frame in frames:
        held.append(frame)
        while sum(each.height for each in held) >= rows:
            whole = pl.concat(held)
            yield whole.head(rows)
            held = [whole.slice(rows)]
    if any(each.height for each in held):
        yield pl.concat(held)


def _settle(client: NudgescribeClient, group: GroupRef, listed: Path, key: str) -> None:
    """Wait for uploads that the service works off in the background."""

    def look() -> ListDiff:
        with scratch_folder("what the service holds") as folder:
            held = folder / "held.parquet"
            held_customers(client, group.workspace_id, group.customer_group_id, listed, held)
            return diff_lists(listed, held, key)

    seen = None
    for seen in poll(look, upload.SETTLE_SECONDS):
        if not (seen.added or seen.changed or seen.removed):
            return
    assert seen
    raise UploadIncomplete(
        f"Group {group.customer_group_id} has not become the list in "
        f"{upload.SETTLE_SECONDS / 60:g} minutes, last seen: {seen.added:,} customers missing, "
        f"{seen.changed:,} not as in the list, {seen.removed:,} too many."
    )


def _text(value: str | int | float | None) -> str | None:
    return None if value is None else str(value)
